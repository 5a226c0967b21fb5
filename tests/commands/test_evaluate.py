import json
from pathlib import Path

import numpy as np
import pytest

from hoserkd.cli import main

FILES = ("report.html", "report.md", "evaluation.json")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return a data folder and a store with the smoke city and a trained run."""
    home = tmp_path_factory.mktemp("smoke")
    options = ["--data-dir", str(home), "--store", str(home / "store"), "--quiet"]
    assert main(["prepare", "--profile", "smoke", *options]) == 0
    assert main(["train", "--profile", "smoke", "--no-distill", "--name", "first", *options]) == 0
    return options


@pytest.fixture(scope="module")
def trip_files(places, tmp_path_factory):
    """Return two files of trips that answer the same requests."""
    from hoserkd.engine.city.storage import load_city
    from hoserkd.engine.metrics.baselines import frequent_turns, real_sample, shortest_paths
    from hoserkd.engine.trips.generated import save_generated

    city = load_city(Path(places[1]) / "cities" / "smoke")
    queries = real_sample(city.split("test"), 30, 0)
    folder = tmp_path_factory.mktemp("trips")
    for name, trips in (("fast.csv", shortest_paths(city.network, queries)),
                        ("usual.parquet", frequent_turns(city.network, queries,
                                                         city.split("train")))):
        save_generated(folder / name, trips, city.network)
    return folder / "fast.csv", folder / "usual.parquet"


def smoke(places, *arguments):
    return ("evaluate", *arguments, "--profile", "smoke", *places)


def test_a_file_is_judged_shown_and_reported(run_cli, places, trip_files, tmp_path):
    answer = run_cli(*smoke(places, trip_files[0], "--output", tmp_path / "out"))
    assert answer.exit_code == 0, answer.stderr
    assert "Headline figures" in answer.stdout
    assert "OD completion" in answer.stdout
    for name in FILES:
        assert (tmp_path / "out" / name).stat().st_size > 1000
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["schema_version"] == 1
    judged = document["evaluations"][0]
    assert judged["name"] == "fast"
    assert judged["metrics"]["completion"]["value"] == 1.0
    assert set(judged["references"]) == {"floor", "shortest path", "most frequent turns",
                                         "straightest turns"}


def test_json_is_one_document_with_the_places(run_cli, places, trip_files, tmp_path):
    answer = run_cli(*smoke(places, trip_files[0], "--output", tmp_path, "--json"))
    document = json.loads(answer.stdout)
    assert document["schema_version"] == 1
    assert document["report"] == str(tmp_path / "report.html")
    assert document["evaluations"][0]["metrics"]["dtw_km"]["value"] >= 0


def test_two_files_are_compared_on_their_common_requests(run_cli, places, trip_files, tmp_path):
    answer = run_cli(*smoke(places, *trip_files, "--output", tmp_path, "--json"))
    assert answer.exit_code == 0, answer.stderr
    comparison = json.loads(answer.stdout)["comparisons"][0]
    assert (comparison["a"], comparison["b"], comparison["queries"]) == ("fast", "usual", 30)


def test_a_run_without_trips_generates_them_and_says_so(run_cli, places):
    quiet = [option for option in places if option != "--quiet"]
    answer = run_cli("evaluate", "first", "--json", *quiet)
    assert answer.exit_code == 0, answer.stderr
    assert "has no trips for test ODs: generating" in answer.stderr
    document = json.loads(answer.stdout)
    judged = document["evaluations"][0]
    assert 0 < judged["metrics"]["next_step_accuracy"]["value"] < 1
    assert judged["reliability"]["count"]
    assert Path(document["report"]).is_file()
    again = run_cli("evaluate", "first", "--json", *quiet)
    assert "generating" not in again.stderr
    assert json.loads(again.stdout)["evaluations"][0]["metrics"] == judged["metrics"]


@pytest.mark.parametrize(("search", "settings", "measured"), [
    ("astar", (), False), ("sample", ("--set", "generate.forbid_loops=false"), True)])
def test_no_revisits_are_told_of_a_search_that_cannot_come_back(
    run_cli, places, tmp_path, search, settings, measured
):
    made = tmp_path / "made.csv"
    answer = run_cli("generate", "--run", "first", "--num", "5", "--search", search, *settings,
                     "-o", made, *places)
    assert answer.exit_code == 0, answer.stderr
    answer = run_cli(*smoke(places, made, "-o", tmp_path / "out", "--json"))
    found = json.loads(answer.stdout)["evaluations"][0]["metrics"]["revisit_share"]
    assert (found["value"] is not None) == measured
    assert ("by construction" in found.get("note", "")) != measured


def test_both_splits_are_judged_apart(run_cli, places, trip_files, tmp_path):
    answer = run_cli(*smoke(places, trip_files[0], "--od", "both", "--output", tmp_path, "--json",
                            "--set", "evaluate.bootstrap=10"))
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    assert [judged["od"] for judged in document["evaluations"]] == ["test", "train"]
    assert [judged["counts"]["real"] for judged in document["evaluations"]] == [
        judged["counts"]["real"] for folder in (tmp_path, tmp_path / "train")
        for judged in json.loads((folder / "evaluation.json").read_text())["evaluations"]]
    assert (tmp_path / "train" / "report.html").is_file()


def test_the_report_tells_the_commands_behind_it(run_cli, places, tmp_path):
    made = tmp_path / "made.csv"
    # Run by name: what the store remembers is the command line of this process.
    answer = run_cli("generate", "--run", "first", "--od", "test", "--num", "5", "--search",
                     "sample", "--per-od", "3", "-o", made, *places)
    assert answer.exit_code == 0, answer.stderr
    answer = run_cli(*smoke(places, made, "--output", tmp_path, "--json",
                            "--set", "evaluate.bootstrap=10"))
    assert answer.exit_code == 0, answer.stderr
    document = json.loads(answer.stdout)
    judged = document["evaluations"][0]
    assert judged["counts"]["queries"] == 15
    assert 0 <= judged["metrics"]["diversity"]["value"] <= 1
    assert document["commands"]
    assert all(line.startswith("hoserkd") for line in document["commands"])


def test_the_store_holds_the_figures_under_the_judged_run(run_cli, places, trip_files, tmp_path):
    from hoserkd.store.runs import RunStore

    answer = run_cli(*smoke(places, "first", trip_files[1], "--output", tmp_path, "--json"))
    document = json.loads(answer.stdout)
    store = RunStore(Path(places[3]))
    found = store.evaluations(document["run_id"])
    assert [record.payload["name"] for record in found] == ["first", "usual"]
    assert found[0].payload["run_id"] == store.run("first", kind="train").run_id
    assert found[1].payload["dtw_km"] == pytest.approx(
        document["evaluations"][1]["metrics"]["dtw_km"]["value"])
    kinds = {artifact.kind for artifact in store.artifacts(document["run_id"])}
    assert {"evaluation", "report", "report-markdown"} <= kinds
    assert store.run(document["run_id"]).status == "finished"


def test_geojson_can_be_read_and_lies_beside_the_report(run_cli, places, trip_files, tmp_path):
    answer = run_cli(*smoke(places, trip_files[0], "--export", "geojson", "-o", tmp_path))
    assert answer.exit_code == 0, answer.stderr
    trips = json.loads((tmp_path / "fast-trips.geojson").read_text())
    roads = json.loads((tmp_path / "fast-roads.geojson").read_text())
    assert trips["type"] == roads["type"] == "FeatureCollection"
    points = np.concatenate([f["geometry"]["coordinates"] for f in trips["features"]])
    assert np.isfinite(points).all()


@pytest.mark.parametrize(("arguments", "message"), [
    (("missing.csv",), "missing.csv: no such file"),
    (("nobody",), "nobody"),
    (("first", "--od", "val"), "--od must be train, test or both"),
    (("first", "--export", "shape"), "--export knows"),
    (("first", "first"), "named twice"),
])
def test_a_wrong_request_ends_with_one_line_and_a_hint(run_cli, places, arguments, message):
    answer = run_cli(*smoke(places, *arguments))
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert "hint:" in answer.stderr
    assert answer.stdout == ""


def test_trips_of_another_city_are_refused(run_cli, places, tmp_path):
    path = tmp_path / "foreign.csv"
    path.write_text('rid_list,time_list\n"999999,999998","2008-05-19T08:00:00Z,2008-05-19T08:01:00Z"\n')
    answer = run_cli(*smoke(places, path))
    assert answer.exit_code == 2
    assert "foreign.csv" in answer.stderr


def test_a_public_checkpoint_is_judged_by_the_trips_it_makes(run_cli, tmp_path):
    recorded = Path(__file__).parent.parent / "data" / "hoser"
    city = tmp_path / "city"
    assert run_cli("prepare", "--source", recorded / "city", "--city", city).exit_code == 0
    answer = run_cli("evaluate", "--model", recorded / "best.pth", "--city", city, "--json",
                     "--set", "generate.num=20", "--set", "evaluate.bootstrap=20",
                     "--output", tmp_path / "out")
    assert answer.exit_code == 0, answer.stderr
    (judged,) = json.loads(answer.stdout)["evaluations"]
    assert judged["name"] == "best"
    assert judged["facts"]["model"] == "best.pth"
    assert judged["counts"]["queries"] == 20
    assert {"next_step_accuracy", "completion"} <= judged["metrics"].keys()


def test_models_of_one_name_keep_their_own_trips(run_cli, tmp_path):
    import torch

    recorded = Path(__file__).parent.parent / "data" / "hoser"
    city = tmp_path / "city"
    assert run_cli("prepare", "--source", recorded / "city", "--city", city).exit_code == 0
    weights = torch.load(recorded / "best.pth", weights_only=True)
    files = []
    for folder, sign in (("a", 1), ("b", -1)):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "best.pth")
        turned = weights | {"navigator.v_proj.weight": sign * weights["navigator.v_proj.weight"]}
        torch.save(turned, files[-1])
    answer = run_cli("evaluate", "--model", files[0], "--model", files[1], "--city", city, "--json",
                     "--set", "generate.num=10", "--set", "evaluate.bootstrap=0")
    assert answer.exit_code == 0, answer.stderr
    judged = json.loads(answer.stdout)["evaluations"]
    assert len({j["source"] for j in judged}) == len({j["facts"]["trips sha256"] for j in judged})
    assert len({j["source"] for j in judged}) == 2
    assert [j["name"] for j in judged] == ["a/best.pth", "b/best.pth"]


def test_nothing_to_judge_is_told_in_one_line(run_cli):
    answer = run_cli("evaluate")
    assert answer.exit_code == 2
    assert "--model FILE" in answer.stderr


def test_a_model_file_that_is_missing_is_named(run_cli, places, tmp_path):
    answer = run_cli(*smoke(places, "--model", tmp_path / "none.pth"))
    assert answer.exit_code == 2
    assert "none.pth: no such file" in answer.stderr


def test_all_that_is_recorded_is_in_the_catalogue(run_cli, places, tmp_path):
    from hoserkd.engine.metrics.catalogue import metric_of
    from hoserkd.store.runs import RunStore

    answer = run_cli("generate", "--run", "first", "-o", tmp_path / "g.csv", *places)
    assert answer.exit_code == 0, answer.stderr
    store = RunStore(Path(places[3]))
    names = set()
    for run in store.runs():
        names |= store.metrics(run.run_id).keys() | run.last_metrics.keys()
        names |= {name for epoch in store.epochs(run.run_id) for name in epoch.metrics}
        for judged in store.evaluations(run.run_id):
            if run.kind in ("train", "generate"):
                # Hashes and names are no figures.
                names |= {name for name, value in judged.payload.items()
                          if not isinstance(value, str)}
    assert {"trips_per_s", "val_accuracy", "test_accuracy", "completion"} <= names
    assert {name for name in names if metric_of(name) is None} == set()
