import json
import subprocess
import sys
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent.parent / "data" / "hoser"


@pytest.fixture
def city(tmp_path, run_cli):
    folder = tmp_path / "city"
    answer = run_cli("prepare", "--source", RECORDED / "city", "--city", folder)
    assert answer.exit_code == 0, answer.stderr
    return folder


@pytest.fixture
def trained(city, store, home):
    """A finished training run whose student has small fresh weights."""
    import torch

    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.config import EngineConfig, StudentConfig
    from hoserkd.engine.student.storage import StudentMeta, new_student, save_student
    from hoserkd.settings import config_json
    from hoserkd.store.runs import RunStore

    town = load_city(city)
    torch.manual_seed(0)
    config = StudentConfig(hidden_dim=16, road_id_dim=8, attribute_dim=2)
    network = town.network
    meta = StudentMeta(config, network.roads, len(network.highway_names), network.zones, town.times)
    store = RunStore(home / "store")
    with store.create_run("train", "default", "tiny", config_json(EngineConfig())) as recorder:
        model = new_student(config, network)
        save_student(recorder.directory / "best.safetensors", model, meta)
    return recorder


def test_generate_with_a_run_writes_into_its_folder_and_records_it(city, trained, run_cli, home):
    from hoserkd.store.runs import RunStore

    answer = run_cli("generate", "--run", "tiny", "--city", city, "--od", "train", "--num", 20,
                     "--json")
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    output = Path(said["output"])
    assert output == trained.directory / "generated" / "train-astar.csv"
    assert len(output.read_text().splitlines()) == 21
    assert said["trips"] == 20
    assert sum(said["reasons"].values()) == 20
    assert {"completion", "trips_per_s", "expansions_per_trip", "length_ratio",
            "log_prob"} <= said["metrics"].keys()
    store = RunStore(home / "store")
    [made] = store.runs(kind="generate")
    assert made.status == "finished"
    assert made.parents == (trained.run_id,)
    assert [Path(a.path) for a in store.artifacts(made.run_id)] == [output]


def test_generate_writes_the_public_columns_beside_the_run_not_into_it(
    city, trained, run_cli, tmp_path
):
    words = ("generate", "--run", "tiny", "--city", city, "--num", 5, "--columns", "public")
    answer = run_cli(*words, "--output", tmp_path / "trips.csv")
    assert answer.exit_code == 0, answer.stderr
    header, *rows = (tmp_path / "trips.csv").read_text().splitlines()
    assert header.endswith("gene_trace_road_id,gene_trace_datetime")
    assert len(rows) == 5
    assert not (trained.directory / "generated").exists()
    for wrong in ((), ("--output", tmp_path / "trips.parquet")):
        refused = run_cli(*words, *wrong)
        assert refused.exit_code == 2
        assert ".csv" in refused.stderr


def test_generate_with_a_public_checkpoint_and_a_file_of_pairs(city, run_cli, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("origin,destination,departure\n29,66,2015-11-02T14:50:52Z\n5,5,\n999,1,\n")
    output = tmp_path / "trips.geojson"
    answer = run_cli("generate", "--model", RECORDED / "best.pth", "--city", city, "--od", pairs,
                     "--search", "beam", "--output", output)
    assert answer.exit_code == 0, answer.stderr
    assert "unknown road" in answer.stdout
    features = json.loads(output.read_text())["features"]
    assert [f["properties"]["reason"] for f in features] == ["reached", "same road", "unknown road"]
    assert features[2]["properties"]["origin"] == 999


@pytest.mark.parametrize(("arguments", "message"), [
    (("--run", "tiny", "--model", "x.pth"), "--run and --model exclude each other"),
    (("--run", "nobody"), "nobody"),
    (("--run", "tiny", "--od", "nowhere"), "neither train, test or test-trips nor a file"),
    (("--run", "tiny", "--search", "dream"), "search"),
    (("--run", "tiny", "--output", "trips.txt"), "trips.txt"),
])
def test_generate_with_a_wrong_option_says_which(city, trained, run_cli, arguments, message):
    answer = run_cli("generate", "--city", city, *arguments)
    assert answer.exit_code != 0
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_stopped_generation_goes_on_where_it_was(city, trained, run_cli, tmp_path, monkeypatch):
    from hoserkd.commands import context
    from hoserkd.engine import generate

    whole, resumed = tmp_path / "whole.csv", tmp_path / "resumed.csv"
    command = ("generate", "--run", "tiny", "--city", city, "--od", "train", "--num", 40,
               "--search", "sample", "--set", "generate.batch_size=8")
    assert run_cli(*command, "--output", whole).exit_code == 0
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(generate, "CHUNK_TRIPS", 4)
        patch.setattr(context.StopHandler, "__call__",
                      lambda self: calls.append(1) or len(calls) > 60)
        stopped = run_cli(*command, "--output", resumed)
    assert stopped.exit_code == 130, stopped.stderr
    assert "the same command goes on from there" in stopped.stderr
    assert not resumed.exists()
    answer = run_cli(*command, "--output", resumed)
    assert answer.exit_code == 0
    assert "trips of an earlier try are kept" in answer.stderr
    assert resumed.read_text() == whole.read_text()
    assert [path.name for path in tmp_path.glob(".*parts*")] == []


def test_points_far_from_any_road_are_named_beside_the_trips(city, run_cli, tmp_path):
    from hoserkd.engine.city.storage import load_city

    network = load_city(city).network
    (lon, lat), (far_lon, far_lat) = network.centroid_lonlat[[5, 90]]
    pairs = tmp_path / "points.csv"
    pairs.write_text("origin_lon,origin_lat,destination_lon,destination_lat,departure\n"
                     f"{lon},{lat},{far_lon},{far_lat + 0.016},2015-11-02T14:50:52Z\n")
    answer = run_cli("generate", "--model", RECORDED / "best.pth", "--city", city, "--od", pairs,
                     "--output", tmp_path / "trips.kepler.geojson", "--json")
    assert answer.exit_code == 0, answer.stderr
    said = json.loads(answer.stdout)
    assert "m from the road taken for it" in answer.stderr
    assert said["snapped"] == str(tmp_path / "trips.snapped.csv")
    head, row = (tmp_path / "trips.snapped.csv").read_text().splitlines()
    assert head == "origin,destination,origin_away_m,destination_away_m"
    assert float(row.split(",")[3]) == pytest.approx(said["metrics"]["snapped_max_m"], abs=0.1)
    assert 200 < float(row.split(",")[3]) < 700
    asked = json.loads((tmp_path / "trips.kepler.geojson").read_text())["features"][0]
    assert row.split(",")[:2] == [str(asked["properties"][end]) for end in ("origin",
                                                                              "destination")]


def test_two_processes_generate_the_same_file_as_one(city, run_cli, tmp_path):
    alone, shared = tmp_path / "alone.csv", tmp_path / "shared.csv"
    command = ["generate", "--model", str(RECORDED / "best.pth"), "--city", str(city),
               "--od", "test-trips"]
    assert run_cli(*command, "--output", alone).exit_code == 0
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "hoserkd", *command, "--output", str(shared)],
        capture_output=True, text=True, timeout=240, check=False)
    assert launched.returncode == 0, launched.stderr
    assert shared.read_text() == alone.read_text()
    assert len(shared.read_text().splitlines()) == 61


def test_generate_draws_a_trip_as_a_map(city, run_cli, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("origin,destination,departure\n29,66,2015-11-02T14:50:52Z\n")
    answer = run_cli("generate", "--model", RECORDED / "best.pth", "--city", city, "--od", pairs,
                     "--show", 0, "--output", tmp_path / "trips.csv")
    assert answer.exit_code == 0, answer.stderr
    lines = [line for line in answer.stdout.splitlines()
             if any(0x2800 < ord(letter) < 0x2900 for letter in line)]
    assert 8 <= len(lines) <= 24
    assert sum(line.count("A") for line in lines) == 1
    assert sum(line.count("B") for line in lines) == 1
