"""A checkpoint made by the public LM-TAD trainer, read here, gives the public probabilities."""

import csv
import json

import numpy as np
import pytest
import torch

from hoserkd.engine.teacher.export import (
    ExportOptions,
    export_checkpoint,
    load_teacher,
    parse_cell_size,
)

pytestmark = pytest.mark.consumers
NEEDS = ("torch", "pandas", "tqdm", "sklearn", "matplotlib", "seaborn")
BOUNDS = (43.71, 7.35, 43.77, 7.49)
"""South, west, north, east: not Porto's box, whose 51 x 158 cells every checkpoint claims."""
TRIPS = 300
PREPROCESS = """
import sys
sys.path[:0] = ["."]
from preprocess.preprocess_porto import main
south, west, north, east = map(float, sys.argv[3].split(","))
main(sys.argv[1], sys.argv[2], 0.1, 0.1,
     dict(min_lat=south, max_lat=north, min_lng=west, max_lng=east), 1, True)
"""
PROBABILITIES = """
import json, sys
import torch
sys.path[:0] = ["."]
from models import LMTAD
saved = torch.load(sys.argv[1], weights_only=False)
saved["model_config"].logging = False
model = LMTAD(saved["model_config"])
model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in saved["model"].items()})
model.eval()
tokens = torch.tensor(json.load(open(sys.argv[2])))
with torch.no_grad():
    torch.save(torch.softmax(model(tokens)[0], -1), sys.argv[3])
print("grid", saved["dataset_config"].grip_size)
"""


def write_polylines(path):
    """Write walks in the form of the Porto taxi data: a point every 15 seconds."""
    rng = np.random.default_rng(0)
    south, west, north, east = BOUNDS
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("TRIP_ID", "POLYLINE"))
        for number in range(TRIPS):
            steps = rng.normal(0, 6e-4, (24, 2)).cumsum(axis=0)
            lines = np.array([west + east, south + north]) / 2 + steps
            writer.writerow((number, json.dumps(lines.round(6).tolist())))


@pytest.fixture(scope="module")
def trained(public_lmtad, python_with, run_peer, tmp_path_factory):
    """Return (Python, folder of the code, checkpoint, tokens of each trip)."""
    python, folder = python_with(*NEEDS), tmp_path_factory.mktemp("lmtad")
    code = public_lmtad / "code"
    write_polylines(folder / "train.csv")
    run_peer(python, "-c", PREPROCESS, folder / "train.csv", folder / "data",
             ",".join(map(str, BOUNDS)), cwd=code)
    run_peer(python, "train_LMTAD.py", "--data_folder", folder / "data", "--data_file_name",
             "porto_processed", "--dataset", "porto", "--features", "none", "--batch_size", 64,
             "--out_dir", folder / "out", "--output_file_name", "None", "--max_iters", 1,
             "--block_size", -1, "--n_layer", 1, "--n_head", 2, "--n_embd", 16, "--debug",
             "--device", "cpu", cwd=code)
    [checkpoint] = (folder / "out").rglob("*.pt")
    lines = (folder / "data" / "porto_processed.csv").read_text().splitlines()
    return python, code, checkpoint, [json.loads(line) for line in lines]


def test_checkpoint_of_the_public_trainer_is_exported_with_its_own_grid(
    trained, run_peer, tmp_path
):
    python, code, checkpoint, trips = trained
    options = ExportOptions(bounds=BOUNDS, cell_deg=parse_cell_size("0.1km"))
    export_checkpoint(checkpoint, tmp_path / "teacher", options)
    teacher = load_teacher(tmp_path / "teacher")
    tokens = [[teacher.sot_id, *trip[:20]] for trip in trips[:40]]
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    said = run_peer(python, "-c", PROBABILITIES, checkpoint, tmp_path / "tokens.json",
                    tmp_path / "theirs.pt", cwd=code)
    assert "grid (51, 158)" in said
    assert (teacher.grid.rows, teacher.grid.cols) == (67, 156)
    theirs = torch.load(tmp_path / "theirs.pt", weights_only=True)
    with torch.inference_mode():
        # The model gives the state before its head, which is its token embedding.
        state = teacher.model(torch.tensor(tokens))
        ours = torch.softmax(state @ teacher.model.token_embedding.T, -1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_points_fall_into_the_public_cells(trained, tmp_path):
    _, _, checkpoint, trips = trained
    options = ExportOptions(bounds=BOUNDS, cell_deg=parse_cell_size("0.1km"))
    grid = export_checkpoint(checkpoint, tmp_path / "teacher", options).grid
    with (checkpoint.parents[3] / "train.csv").open() as file:
        lines = [np.array(json.loads(row["POLYLINE"])) for row in csv.DictReader(file)]
    # The public preprocessing sorts trips by their ends, and keeps all of these.
    ours = sorted(grid.tokens(line).tolist() for line in lines)
    assert ours == sorted(trips)
