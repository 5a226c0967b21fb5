"""Students of ours in the public HOSER code, its weights here, and trips both ways."""

import json
import re
import shutil

import pytest
import torch
import yaml
from peers import DATA, HOSER_NEEDS, paths_of, prepared, working_copy

from hoserkd.engine.config import EvaluateConfig, GenerateConfig, StudentConfig, TrainConfig
from hoserkd.engine.evaluate import evaluate_trips
from hoserkd.engine.generate import draw_queries
from hoserkd.engine.library import search_trips
from hoserkd.engine.public_folder import PublicFolder, save_public_folder
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, load_student, new_student
from hoserkd.engine.trips.generated import load_generated
from hoserkd.engine.trips.public_form import save_public

pytestmark = pytest.mark.consumers
SEARCHES = 20
SMALL = StudentConfig(hidden_dim=32, road_id_dim=16, attribute_dim=4, features="aaai2025")
NOTEBOOK_NEEDS = ("pandas", "scipy", "shapely", "geopy", "hausdorff", "fastdtw", "seaborn",
                  "matplotlib")
PLACES = """
import os, sys
os.environ["MPLBACKEND"] = "Agg"
sys.path.insert(0, ".")
"""


def public_answers(copy, run_peer, python, dataset):
    """Return the file of trips that the public `gene.py` generates."""
    run_peer(python, "gene.py", "--dataset", dataset, "--num_gene", SEARCHES, "--processes", 1,
             cwd=copy)
    [file] = (copy / "gene" / dataset / "seed0").glob("*.csv")
    return file


def same_requests(trips):
    """Return requests for the same origins, destinations and departures."""
    return Queries(trips.origin, trips.destination, trips.departure_s, None)


def test_public_search_gives_our_roads_and_times_on_our_export(
    town, public_hoser, python_with, run_peer, run_cli, tmp_path
):
    python = python_with(*HOSER_NEEDS)
    torch.manual_seed(1)
    network = town.network
    meta = StudentMeta(SMALL, network.roads, len(network.highway_names), network.zones, town.times)
    student = LoadedStudent(new_student(SMALL, network).eval(), meta)
    save_public_folder(tmp_path / "ours", PublicFolder(
        "a run", student, town, TrainConfig(), real_trips=True))
    copy = working_copy(public_hoser, tmp_path)
    shutil.copytree(tmp_path / "ours", copy, dirs_exist_ok=True)
    file = public_answers(copy, run_peer, python, "town")
    theirs = load_generated(file, network)
    # Destinations that were missed are not in the file, so only the others can be asked again.
    ours = search_trips(student, town, same_requests(theirs), GenerateConfig())
    assert paths_of(ours) == paths_of(theirs)
    assert len(theirs) == SEARCHES
    judged = run_cli("evaluate", file, "--city", town.directory, "--set", "evaluate.bootstrap=20",
                     "--output", tmp_path / "report", "--json")
    assert judged.exit_code == 0, judged.stderr
    assert json.loads(judged.stdout)["evaluations"][0]["counts"]["queries"] == SEARCHES


def test_our_search_gives_the_public_roads_and_times_on_public_weights(
    public_hoser, python_with, run_peer, tmp_path
):
    python = python_with(*HOSER_NEEDS)
    copy = working_copy(public_hoser, tmp_path)
    shutil.copytree(DATA / "city", copy / "data" / "town")
    settings = yaml.safe_load((copy / "config" / "Porto.yaml").read_text("utf-8"))
    encoder = settings["road_network_encoder_config"]
    encoder |= {name: 4 for name in encoder if name.endswith("_emb_dim")} | {
        "road_id_emb_dim": 16, "intersection_emb_dim": 32, "zone_id_emb_dim": 32,
        "zone_id_num_embeddings": 6}
    settings["trajectory_encoder_config"] |= {"hidden_dim": 32, "max_len": 64}
    settings["navigator_config"]["hidden_dim"] = 32
    settings["optimizer_config"] |= {"max_epoch": 1, "batch_size": 64}
    (copy / "config" / "town.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    run_peer(python, "train.py", "--dataset", "town", cwd=copy)
    file = public_answers(copy, run_peer, python, "town")
    city = prepared(DATA / "city", tmp_path / "city")
    student = load_student(copy / "save" / "town" / "seed0" / "best.pth", city)
    theirs = load_generated(file, city.network)
    ours = search_trips(student, city, same_requests(theirs), GenerateConfig())
    assert paths_of(ours) == paths_of(theirs)
    assert len(theirs) == SEARCHES


def notebook(public, folder):
    """Return a script of the notebook's code, and the folder in which it finds its files."""
    place = folder / "a" / "b"
    place.mkdir(parents=True)
    shutil.copy(public / "evaluation" / "map_manager.py", place)
    cells = json.loads((public / "evaluation" / "main.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (place / "main.py").write_text(PLACES + code, "utf-8")
    return place


def test_notebook_reads_our_file_and_comes_to_our_figures(
    town, public_hoser, python_with, run_peer, tmp_path
):
    python = python_with(*NOTEBOOK_NEEDS)
    student = load_student(DATA / "best.pth", town)
    trips = search_trips(student, town, draw_queries(town, "test", 60, 0), GenerateConfig())
    place = notebook(public_hoser, tmp_path)
    save_public(place / "gene" / "HOSER" / "ours.csv", [trips], town.network)
    (tmp_path / "cleaned-data").mkdir()
    shutil.copy(DATA / "city" / "test.csv", tmp_path / "cleaned-data" / "new_test.csv")
    shutil.copy(DATA / "city" / "roadmap.geo", tmp_path / "cleaned-data")
    said = run_peer(python, "main.py", cwd=place)
    divergences = [float(x) for x in re.findall(r"JS divergence: ([\d.]+)", said)]
    pairs = re.search(r"Hausdorff: ([\d.]+)±.*DTW: ([\d.]+)±.*EDR: ([\d.]+)±", said)
    config = EvaluateConfig(bootstrap=0, cell_origin=(116.25, 39.79))
    figures = evaluate_trips(trips, town, config, "test").figures
    ours = [figures[name].value for name in ("distance_jsd", "radius_jsd", "step_duration_jsd")]
    assert divergences == pytest.approx(ours, abs=6e-5)
    hausdorff, dtw, edr = (float(x) for x in pairs.groups())
    # The radii of the Earth differ by 0.1 %, and fastdtw only bounds DTW from above.
    assert hausdorff == pytest.approx(figures["hausdorff_km"].value, rel=3e-3)
    assert figures["dtw_km"].value <= dtw * (1 + 2e-3)
    assert figures["dtw_km"].value == pytest.approx(dtw, rel=5e-2)
    assert edr == pytest.approx(figures["edr_public"].value, abs=6e-5)
