import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_teacher import toy_model, toy_teacher

from hoserkd.engine.city.grid import Grid
from hoserkd.engine.teacher.export import (
    ExportOptions,
    export_checkpoint,
    parse_bounds,
    parse_cell_size,
)
from hoserkd.engine.teacher.grid_options import GridEvidence, find_grid
from hoserkd.engine.teacher.storage import load_card, load_teacher
from hoserkd.errors import TeacherError, UsageError

DATA = Path(__file__).parents[1] / "data" / "lmtad"
BOUNDS = (41.0, -8.7, 41.09, -8.58)
PLAIN = ExportOptions(bounds=BOUNDS)


def checkpoint(path: Path, **changes: object) -> Path:
    """Return a public-like checkpoint of a 3 x 4 grid; `changes` replace parts of it."""
    model = toy_model(15)
    content: dict = {
        "model": dict(model.state_dict()),
        "model_config": {"vocab_size": 15, "block_size": 24, "n_layer": 2, "n_head": 2,
                         "n_embd": 16, "dropout": 0.2, "pad_token": 12, "integer_poe": False},
        "dataset_config": {"grip_size": (3, 4)}, "iter_num": 3, "best_val_loss": 1.5}
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            content[part] = {**content[part], name: value}
        else:
            content[part] = value
    torch.save(content, path)
    return path


def vocabulary(path: Path, cells: int, **changes: int) -> Path:
    words = {str(i): i for i in range(cells)}
    words |= {"PAD": cells, "EOT": cells + 1, "SOT": cells + 2} | changes
    path.write_text(json.dumps(words))
    return path


@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_public_checkpoint_becomes_an_export_that_says_all(kind, tmp_path):
    about = json.loads((DATA / kind / "about.json").read_text())
    card = export_checkpoint(DATA / kind / "ckpt.pt", tmp_path / "t", PLAIN)
    assert load_card(tmp_path / "t") == card
    assert (card.pad_id, card.eot_id, card.sot_id) == tuple(
        about[f"{name}_id"] for name in ("pad", "eot", "sot"))
    assert {k: about[k] for k in card.dimensions.to_json() if k != "dropout"} == {
        k: v for k, v in card.dimensions.to_json().items() if k != "dropout"}
    assert (card.grid.rows, card.grid.cols) == (about["rows"], about["cols"])
    assert (card.grid.max_lat, card.grid.max_lng) == pytest.approx((41.09, -8.58))
    assert card.meta["iterations"] == 17
    assert card.meta["val_loss"] > 0
    weights = load_file(tmp_path / "t" / "weights.safetensors")
    assert not any(name.startswith(("_orig_mod.", "lm_head")) for name in weights)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]


def test_hash_follows_weights_grid_and_nothing_else(tmp_path):
    base = export_checkpoint(checkpoint(tmp_path / "a.pt"), tmp_path / "a", PLAIN)
    again = export_checkpoint(checkpoint(tmp_path / "b.pt", iter_num=9), tmp_path / "b", PLAIN)
    moved = export_checkpoint(tmp_path / "a.pt", tmp_path / "c",
                              ExportOptions(bounds=(41.0, -8.7, 41.09, -8.57)))
    assert base.sha256 == again.sha256
    assert base.sha256 != moved.sha256
    assert replace(base, sot_id=12).sha256 != base.sha256


def test_our_own_export_is_exported_again_unchanged(tmp_path):
    first = export_checkpoint(checkpoint(tmp_path / "a.pt"), tmp_path / "a", PLAIN)
    second = export_checkpoint(tmp_path / "a", tmp_path / "b")
    assert second.sha256 == first.sha256
    assert second.meta == first.meta
    with pytest.raises(TeacherError, match="brings its own grid"):
        export_checkpoint(tmp_path / "a", tmp_path / "c", ExportOptions(rows=9))


def test_integer_poe_is_refused_with_the_reason(tmp_path):
    path = checkpoint(tmp_path / "c.pt", model_config__integer_poe=True)
    with pytest.raises(TeacherError, match="by batch row"):
        export_checkpoint(path, tmp_path / "t", PLAIN)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(("changes", "said"), [
    ({"model_config__vocab_size": 16}, "vocab_size 16 (config) but 15 (weights)"),
    ({"model_config__n_layer": 3}, "n_layer 3 (config) but 2 (weights)"),
    ({"model_config__block_size": 9}, "block_size 9 (config) but 24 (weights)"),
    ({"model_config__n_head": 3}, "n_head is 3"),
    ({"model_config__n_head": None}, "n_head is None"),
    ({"model_config__pad_token": 8217}, "pad_token is 8217"),
    ({"dataset_config__grip_size": (3, 5)}, "12 ids before its special ones, which does not "
                                            "fit the checkpoint's grip_size, 3 x 5: that needs "
                                            "15 or 21"),
    ({"model__transformer.ln_f.bias": torch.zeros(16)}, "biases"),
    ({"model__lm_head.weight": torch.zeros(15, 16)}, "ties them"),
    ({"model__transformer.h.0.ln_1.weight": torch.zeros(3)}, "found (3,), expected (16,)"),
    ({"model": {"x": torch.zeros(1)}}, "not LM-TAD"),
    ({"model": 3}, "no training checkpoint"),
])
def test_contradiction_is_refused_and_both_sides_are_shown(changes, said, tmp_path):
    path = checkpoint(tmp_path / "c.pt", **changes)
    with pytest.raises(TeacherError) as caught:
        export_checkpoint(path, tmp_path / "t", PLAIN)
    assert said in caught.value.message
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_without_bounds_asks_for_them(tmp_path):
    with pytest.raises(TeacherError, match="3 x 4 cells") as caught:
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t")
    assert "--bounds" in (caught.value.hint or "")


def test_checkpoint_without_grid_takes_it_from_the_options(tmp_path):
    path = checkpoint(tmp_path / "c.pt", dataset_config={})
    with pytest.raises(TeacherError, match="does not say") as caught:
        export_checkpoint(path, tmp_path / "t", PLAIN)
    assert "--grid-rows" in (caught.value.hint or "")
    by_shape = export_checkpoint(path, tmp_path / "a", replace(PLAIN, rows=3, cols=4))
    by_size = export_checkpoint(path, tmp_path / "b", ExportOptions(
        bounds=(41.0, -8.7, 41.025, -8.665), cell_deg=(0.01, 0.01)))
    assert (by_shape.grid.rows, by_shape.grid.cols) == (3, 4)
    assert (by_size.grid.rows, by_size.grid.cols) == (3, 4)


@pytest.mark.parametrize("options", [
    replace(PLAIN, rows=3, cols=5),
    replace(PLAIN, cell_deg=(0.001, 0.001)),
])
def test_grid_options_that_contradict_the_checkpoint_are_refused(options, tmp_path):
    with pytest.raises(TeacherError, match="3 x 4"):
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", options)


def test_bounds_may_be_the_outer_edges_of_whole_cells(tmp_path):
    options = ExportOptions(bounds=(41.0, -8.7, 41.03, -8.66), cell_deg=(0.01, 0.01))
    card = export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", options)
    assert card.grid == Grid(41.0, -8.7, 0.01, 0.01, 3, 4)


def test_either_reading_of_the_bounds_holds_for_each_axis(tmp_path):
    # Binary fractions: the northern edge is that of the third row, the eastern one is inside.
    options = ExportOptions(bounds=(41.0, -8.5, 41.375, -8.0625), cell_deg=(0.125, 0.125))
    card = export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", options)
    assert card.grid == Grid(41.0, -8.5, 0.125, 0.125, 3, 4)


def test_vocabulary_with_spare_cells_as_public_porto_is_taken(tmp_path):
    path = checkpoint(tmp_path / "c.pt", dataset_config__grip_size=(2, 3),
                      model_config__pad_token=10, model=dict(toy_model(13).state_dict()),
                      model_config__vocab_size=13)
    card = export_checkpoint(path, tmp_path / "t", PLAIN)
    assert (card.grid.cells, card.pad_id, card.sot_id) == (6, 10, 12)


def trained_on(path: Path, cell_ids: int, **changes: object) -> Path:
    """Return a checkpoint of so many ids before PAD that claims LM-TAD's default grid."""
    size = cell_ids + 3
    return checkpoint(path, dataset_config__grip_size=(51, 158), model_config__pad_token=cell_ids,
                      model=dict(toy_model(size).state_dict()), model_config__vocab_size=size,
                      **changes)


PORTO = parse_bounds("41.140092,-8.690261,41.185969,-8.549155")
SMALL_BOX = (41.0, -8.7, 41.025, -8.665)
CELLS = (0.01, 0.01)


@pytest.mark.parametrize(("cell_ids", "options"), [
    (3 * 4 + 4 + 1, ExportOptions(bounds=SMALL_BOX, cell_deg=CELLS)),
    (3 * 4, ExportOptions(bounds=SMALL_BOX, cell_deg=CELLS)),
    (3 * 4 + 4 + 1, ExportOptions(bounds=SMALL_BOX, rows=3, cols=4)),
    (3 * 4 + 4 + 1, ExportOptions(bounds=SMALL_BOX, rows=3)),
    (3 * 4 + 4 + 1, ExportOptions(bounds=SMALL_BOX, cols=4)),
    (3 * 4, ExportOptions(bounds=SMALL_BOX, cols=4)),
    (3 * 4, ExportOptions(bounds=SMALL_BOX, rows=3, cell_deg=CELLS)),
])
def test_the_vocabulary_settles_the_grid_whatever_grip_size_says(cell_ids, options, tmp_path):
    card = export_checkpoint(trained_on(tmp_path / "c.pt", cell_ids), tmp_path / "t", options)
    assert (card.grid.rows, card.grid.cols) == (3, 4)
    assert (card.pad_id, card.sot_id) == (cell_ids, cell_ids + 2)


def test_public_porto_and_the_forks_beijing_have_the_vocabularies_we_expect():
    porto = GridEvidence(Path("c.pt"), 8217, (51, 158))
    found = find_grid(porto, ExportOptions(bounds=PORTO, cell_deg=parse_cell_size("0.1km")))
    assert (found.rows, found.cols) == (51, 158)
    beijing = GridEvidence(Path("c.pt"), 205 * 252, (51, 158))
    found = find_grid(beijing, ExportOptions(bounds=(39.79, 116.25, 39.9945, 116.5015),
                                             cell_deg=(0.001, 0.001)))
    assert (found.rows, found.cols) == (205, 252)


@pytest.mark.parametrize(("options", "said"), [
    (ExportOptions(bounds=SMALL_BOX), "grip_size, 51 x 158: that needs 8058 or 8217"),
    (ExportOptions(bounds=SMALL_BOX, cell_deg=(0.02, 0.01)), "make 2 x 4 cells: that needs 8 or"),
    (ExportOptions(bounds=SMALL_BOX, rows=9, cols=9), "--grid-rows 9 and --grid-cols 9: that nee"),
    (ExportOptions(bounds=SMALL_BOX, rows=9), "fit --grid-rows 9: that needs"),
    (ExportOptions(bounds=SMALL_BOX, rows=3, cols=4, cell_deg=(0.02, 0.01)), "make 2 x 4 cells, "),
    (ExportOptions(), "does not say where its grid lies (its grip_size, 51 x 158, does not fit"),
])
def test_where_no_grid_fits_the_reason_is_the_vocabulary(options, said, tmp_path):
    with pytest.raises(TeacherError) as caught:
        export_checkpoint(trained_on(tmp_path / "c.pt", 17), tmp_path / "t", options)
    assert said in caught.value.message


def test_weights_only_file_of_the_distilling_fork_is_taken(tmp_path):
    model = toy_model(15)
    torch.save({"state_dict": dict(model.state_dict()),
                "model_config": {"n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.2,
                                 "grip_size": "3 4", "vocab_size": None, "block_size": -1}},
               tmp_path / "weights_only.pt")
    card = export_checkpoint(tmp_path / "weights_only.pt", tmp_path / "t", PLAIN)
    assert (card.grid.rows, card.grid.cols, card.pad_id, card.sot_id) == (3, 4, 12, 14)
    assert card.meta["special_ids_from"] == "LM-TAD's order PAD, EOT, SOT"


def test_special_ids_are_read_from_the_vocabulary(tmp_path):
    path = checkpoint(tmp_path / "c.pt", model_config__pad_token=None)
    words = vocabulary(tmp_path / "v.json", 12, PAD=14, EOT=12, SOT=13)
    card = export_checkpoint(path, tmp_path / "t", replace(PLAIN, vocab=words))
    assert (card.pad_id, card.eot_id, card.sot_id) == (14, 12, 13)
    assert card.meta["special_ids_from"] == "v.json"


@pytest.mark.parametrize(("cells", "changes", "said"), [
    (13, {}, "has 16 tokens"),
    (12, {"PAD": 13, "EOT": 12}, "PAD is 13"),
    (12, {"3": 4, "4": 3}, "cell 3 has id 4"),
])
def test_vocabulary_that_contradicts_the_weights_is_refused(cells, changes, said, tmp_path):
    words = vocabulary(tmp_path / "v.json", cells, **changes)
    with pytest.raises(TeacherError, match=said):
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t",
                          replace(PLAIN, vocab=words))


def test_vocabulary_with_half_an_id_is_refused(tmp_path):
    words = tmp_path / "v.json"
    words.write_text('{"0": 0.5, "PAD": 1, "EOT": 2, "SOT": 3}')
    with pytest.raises(TeacherError, match="no vocabulary of LM-TAD"):
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t",
                          replace(PLAIN, vocab=words))


def test_vocabulary_without_sot_is_refused(tmp_path):
    words = tmp_path / "v.json"
    words.write_text('{"0": 0, "PAD": 1, "EOT": 2}')
    with pytest.raises(TeacherError, match="no SOT"):
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t",
                          replace(PLAIN, vocab=words))


def test_existing_output_is_not_overwritten(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match="already exists"):
        export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", PLAIN)
    assert (tmp_path / "t" / "mine.txt").read_text() == "x"


def test_damaged_weights_are_noticed(tmp_path):
    export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", PLAIN)
    path = tmp_path / "t" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TeacherError, match="damaged or replaced"):
        load_teacher(tmp_path / "t")


@pytest.mark.parametrize(("change", "said"), [
    (lambda c: c.pop("grid"), "missing or wrong field"),
    (lambda c: c["model"].update(n_layer="x"), "missing or wrong field"),
    (lambda c: c.update(format="other"), "not a teacher's export"),
    (lambda c: c.update(version=99), "version 99"),
    (lambda c: c["grid"].update(rows=30), "30 x 4 = 120 cells"),
    (lambda c: c["tokens"].update(sot=15), "special ids"),
    # Nothing is cut down to a whole number.
    (lambda c: c["grid"].update(rows=3.5), "missing or wrong field"),
    (lambda c: c["model"].update(n_layer=2.5), "missing or wrong field"),
    (lambda c: c["tokens"].update(sot=14.5), "missing or wrong field"),
])
def test_damaged_card_is_a_clear_error(change, said, tmp_path):
    export_checkpoint(checkpoint(tmp_path / "c.pt"), tmp_path / "t", PLAIN)
    path = tmp_path / "t" / "teacher.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(TeacherError, match=said):
        load_card(tmp_path / "t")


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "41,-8,40,-7", "41,-8,42,-9",
                                  "-8,141,-7,142,", "41,0,99,1", "nan,0,1,1"])
def test_bounds_that_are_no_box_are_refused(text):
    with pytest.raises(TeacherError, match="--bounds"):
        parse_bounds(text)


def test_cell_sizes_in_degrees_and_kilometres():
    assert parse_cell_size("0.001") == (0.001, 0.001)
    assert parse_cell_size("0.001,0.002") == (0.001, 0.002)
    assert parse_cell_size("0.1km") == (0.1 / 110.574, 0.1 / 111.320 / 0.99974)
    for text in ("x", "0", "-1km", "1,2,3", "inf", "nan"):
        with pytest.raises(TeacherError, match="--cell-size"):
            parse_cell_size(text)


def test_saved_and_loaded_teacher_answers_the_same(tmp_path):
    from random_city import random_network

    teacher = toy_teacher(random_network(), tmp_path / "t")
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert not teacher.model.training
    again = load_teacher(tmp_path / "t")
    tokens = torch.tensor([[teacher.sot_id, 1, 2]])
    assert torch.equal(again.model(tokens), teacher.model(tokens))
    assert again.model.lm_head.weight is again.model.token_embedding
