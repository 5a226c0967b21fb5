import numpy as np
import pytest
import torch
from random_city import random_network, random_walks
from torch.nn import functional

from hoserkd.engine.config import DataConfig, StudentConfig
from hoserkd.engine.student.navigator import CandidateRows, Navigator
from hoserkd.engine.student.storage import new_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.student.trajectory_encoder import TemporalEncoder
from hoserkd.engine.trips.batches import TripSource

CPU = torch.device("cpu")
CONFIG = StudentConfig(hidden_dim=12, road_id_dim=4, attribute_dim=2, heads=2)


@pytest.fixture(scope="module")
def network():
    return random_network()


@pytest.fixture(scope="module")
def tables(network):
    return build_network_tables(network, "geographic", CPU)


@pytest.fixture(scope="module")
def source(network, tables):
    return TripSource(random_walks(network, trips=20), tables, DataConfig(), CPU)


def student(network, config=CONFIG):
    torch.manual_seed(0)
    return new_student(config, network).double()


def test_answers_for_a_trip_do_not_depend_on_its_company(network, tables, source):
    model = student(network)
    together = source.batch(np.arange(20))
    answers = model(tables, together)
    for trip in (3, 11, 19):
        alone = model(tables, source.batch(np.array([trip])))
        first, last = together.offset[trip], together.offset[trip + 1]
        rows = slice(together.candidate_offset[first], together.candidate_offset[last])
        torch.testing.assert_close(alone.logits, answers.logits[rows], rtol=0, atol=1e-11)
        torch.testing.assert_close(alone.travel_time, answers.travel_time[rows], rtol=0, atol=1e-11)


def test_answers_for_a_step_do_not_depend_on_later_steps(network, tables, source):
    model = student(network)
    batch = source.batch(np.array([int(np.argmax(np.diff(source._offset)))]))
    before = model(tables, batch).logits
    batch.elapsed_min[-1] += 3
    batch.time_of_day[-1] += 0.1
    after = model(tables, batch).logits
    last_step = batch.candidate_offset[-2]
    torch.testing.assert_close(after[:last_step], before[:last_step], rtol=0, atol=0)
    assert not torch.equal(after[last_step:], before[last_step:])


def plain_navigator(navigator, state, zone, road, distance, angle):
    """One step's answers by the formulas of ENGINE.md section 2."""
    query = navigator.q_proj(torch.cat([state, zone]))
    metric = [
        navigator.metric_distance_proj(distance[:, None]),
        navigator.metric_angle_proj(angle[:, None]),
    ]
    key = navigator.k_proj(torch.cat([road, *metric], dim=1))
    halves = [
        navigator.time_estimator_linear_1(state).expand(len(road), -1),
        navigator.time_estimator_linear_2(road),
    ]
    time = navigator.time_estimator_linear_3(functional.gelu(torch.cat(halves, dim=1)))
    return navigator.v_proj(torch.tanh(query + key)).squeeze(1), time.squeeze(1)


def test_navigator_with_projected_roads_equals_the_plain_form():
    torch.manual_seed(0)
    navigator = Navigator(6).double()
    road, zone = torch.randn(9, 6).double(), torch.randn(3, 6).double()
    state, of_zone = torch.randn(2, 12).double(), torch.tensor([2, 0])
    step = torch.tensor([0, 0, 0, 1, 1])
    row, metrics = torch.tensor([8, 1, 4, 4, 0]), torch.rand(2, 5).double()
    fast = navigator(
        state, of_zone, navigator.project(road, zone),
        CandidateRows(step, row, metrics[0], metrics[1]),
    )
    for index in range(2):
        mine = step == index
        logits, time = plain_navigator(
            navigator, state[index], zone[of_zone[index]], road[row[mine]],
            metrics[0][mine], metrics[1][mine],
        )
        torch.testing.assert_close(fast.logits[mine], logits, rtol=0, atol=1e-12)
        torch.testing.assert_close(fast.travel_time[mine], time, rtol=0, atol=1e-12)


def test_time_embedding_has_the_documented_scale():
    encoder = TemporalEncoder(6).double()
    embedding = encoder(torch.tensor([0.25], dtype=torch.float64))
    phase = 0.25 * encoder.freqs
    expected = torch.cat([phase.cos(), phase.sin()]) * (1 / 12) ** 0.5
    torch.testing.assert_close(embedding[0], expected)


def test_gradients_through_cut_encoding_equal_those_in_one_piece(network, tables, source):
    model = student(network)
    parts = [source.batch(np.arange(5)), source.batch(np.arange(5, 9))]

    def loss(encoding):
        outputs = [model.forward_encoded(encoding, part) for part in parts]
        return sum((o.logits.square().sum() + o.travel_time.sum()) for o in outputs)

    loss(model.encode_network(tables)).backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    encoding = model.encode_network(tables, parts)
    leaves = encoding.leaves()
    loss(leaves).backward()
    encoding.backward_from(leaves)
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad, msg=name)


def test_recomputing_blocks_changes_no_gradient(network, tables, source):
    batch = source.batch(np.arange(6))
    gradients = []
    for recompute in (False, True):
        model = student(network)
        model.trajectory_encoder.recompute = recompute
        output = model(tables, batch)
        (output.logits.square() + output.travel_time).sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for kept, recomputed in zip(*gradients, strict=True):
        assert torch.equal(kept, recomputed)


def test_bfloat16_changes_answers_by_its_rounding_only(network, tables, source):
    model = student(network).float()
    batch = source.batch(np.arange(6))
    exact = model(tables, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(tables, batch)
    assert rounded.logits.dtype == torch.float32
    torch.testing.assert_close(rounded.logits, exact.logits, rtol=0.05, atol=0.05)
    torch.testing.assert_close(rounded.travel_time, exact.travel_time, rtol=0.05, atol=0.05)


def test_dropout_acts_in_training_only(network, tables, source):
    model = student(network, CONFIG.model_copy(update={"dropout": 0.5}))
    batch = source.batch(np.arange(4))
    assert not torch.equal(model(tables, batch).logits, model(tables, batch).logits)
    model.eval()
    assert torch.equal(model(tables, batch).logits, model(tables, batch).logits)


@pytest.fixture(scope="module")
def compiled(network):
    """A student and its compiled forward pass, as `train.compile` makes it."""
    model = student(network)
    # Captures and transforms the graph as every backend does, without a C++ compiler.
    return model, torch.compile(model.forward_encoded, backend="aot_eager", dynamic=True)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("trips", [6, 11])
def test_compiling_changes_answers_and_gradients_by_rounding_only(
    compiled, tables, source, trips
):
    model, forward = compiled
    batch = source.batch(np.arange(trips))
    found = []
    for answer in (model.forward_encoded, forward):
        model.zero_grad()
        encoding = model.encode_network(tables, [batch])
        output = answer(encoding, batch)
        (output.logits.square() + output.travel_time).sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append([output.logits, output.travel_time, *gradients])
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(plain, other, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_compiled_forward_pass_is_one_graph(compiled, tables, source):
    model = compiled[0]
    batch = source.batch(np.arange(6))
    encoding = model.encode_network(tables, [batch])
    explained = torch._dynamo.explain(model.forward_encoded)(encoding, batch)
    assert explained.graph_break_count == 0, explained.break_reasons
