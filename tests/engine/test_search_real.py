import pytest
import torch

from benchmarks.plain_hoser import PlainHoser
from benchmarks.plain_search import PlainSearcher
from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import CityConfig, GenerateConfig, StudentConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.generate import draw_queries, generate_trips
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, new_student
from hoserkd.engine.student.tables import build_network_tables


def heading_student(city):
    """A student that prefers the way to its destination, so that searches end soon."""
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=32, road_id_dim=16, attribute_dim=4)
    model, width = new_student(config, city.network).eval(), config.hidden_dim
    head = model.navigator
    with torch.no_grad():
        head.k_proj.weight[:, width:2 * width] = torch.eye(width)
        head.k_proj.weight[:, 2 * width:] = torch.eye(width)
        head.v_proj.weight.copy_(0.1 * torch.randn(1, width) - 6 / width)
        for metric in (head.metric_distance_proj, head.metric_angle_proj):
            metric.weight.fill_(0.6)
            metric.bias.zero_()
    meta = StudentMeta(config, city.network.roads, len(city.network.highway_names),
                       city.network.zones, city.times)
    return LoadedStudent(model, meta)


@pytest.mark.real_data
@pytest.mark.parametrize("searches", [
    40, pytest.param(1000, marks=[pytest.mark.torture, pytest.mark.timeout(1200)])])
def test_searches_for_real_trips_equal_the_plain_ones(real_data, tmp_path, searches):
    """Road for road and second for second; no two nodes tie to float precision in this sample."""
    prepare_city(CityConfig(name="mini"), real_data / "san_francisco_mini", tmp_path / "city",
                 force=False, observer=Silent(), stop=never_stop)
    city = load_city(tmp_path / "city")
    student = heading_student(city)
    queries = draw_queries(city, "test", searches, seed=0)
    found = [(chunk.road[a:b].tolist(), chunk.entered_at_s[a:b].tolist())
             for chunk in generate_trips(
                 student, city, queries, GenerateConfig(), device=torch.device("cpu"), seed=0,
                 observer=Silent(), stop=never_stop)
             for a, b in zip(chunk.offset[:-1], chunk.offset[1:], strict=True)]
    tables = build_network_tables(city.network, "geographic", torch.device("cpu"))
    plain = PlainSearcher(PlainHoser(student.model, city.network, tables), city.network,
                          city.times)
    assert len(found) == searches
    for i, (roads, entered) in enumerate(found):
        departure = int(queries.departure_s[i])
        expected = plain.best_first(int(queries.origin[i]), int(queries.destination[i]), departure)
        assert roads == expected.road
        assert entered == [departure + clock for clock in expected.clock_s]
