"""`hoserkd demo` and `hoserkd bundle` on the smallest city."""

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_trips import holders_of, holders_of_recorded_trips, members


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo of the smallest size, made once."""
    from hoserkd.cli import main

    folder = tmp_path_factory.mktemp("demo") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSERKD_HOME", str(folder))
        assert main(["demo", "--profile", "smoke", "--output", str(folder), "--quiet"]) == 0
    return folder


def test_demo_again_does_nothing_and_says_the_same(made: Path, run_cli: Callable[..., Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
    answer = run_cli("demo", "--profile", "smoke", "--output", made, "--json")
    assert answer.exit_code == 0
    told = json.loads(answer.stdout)
    assert set(told["trained"]) == {"vanilla", "distilled"}
    assert Path(told["report"]).is_file()
    assert Path(told["bundle"]).is_file()
    assert answer.stderr.count("done before") == 9
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")} == before


def test_demo_other_seed_makes_other_students(made: Path, run_cli: Callable[..., Any]) -> None:
    answer = run_cli("demo", "--profile", "smoke", "--output", made, "--seed", "5",
                     "--set", "train.max_steps=2", "--quiet")
    assert answer.exit_code == 0
    assert "vanilla" in answer.stdout
    assert "distilled" in answer.stdout
    runs = json.loads(run_cli("runs", "list", "--store", made / "store", "--json").stdout)["runs"]
    assert [run["seed"] for run in runs if run["name"] == "vanilla"] == [5, 0]


def test_the_last_line_of_the_demo_shows_its_map_as_printed_from_any_folder(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run_cli("demo", "--profile", "smoke", "--output", made).stdout
    (line,) = re.findall(r"^look +hoserkd (tui .*)$", told, re.M)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    assert words[:2] == ["tui", "--store"]
    for shown in (words, [*words[:3], "--run", "latest"]):
        answer = run_cli(*shown, "--screen", "map", "--screenshot", "map.svg")
        assert answer.exit_code == 0, answer.stderr
        picture = (tmp_path / "map.svg").read_text("utf-8").replace("&#160;", " ")
        assert re.search(r"trip 1/\d+", picture), shown
        assert len(set(re.findall("[\u2801-\u28ff]", picture))) > 50


def test_a_plain_dashboard_after_the_demo_names_the_demos_store(
    tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, made: Path
) -> None:
    monkeypatch.setenv("HOSERKD_HOME", str(tmp_path))
    (tmp_path / "demo").symlink_to(made)
    answer = run_cli("tui", "--screenshot", tmp_path / "runs.svg")
    assert answer.exit_code == 0, answer.stderr
    picture = (tmp_path / "runs.svg").read_text("utf-8").replace("&#160;", " ")
    assert f"runs in {made / 'store'}"[:60] in picture
    listed = run_cli("runs", "list")
    assert f"hoserkd runs list --store {made / 'store'} --data-dir {made}" in listed.stderr


def test_bundle_of_a_demo_run_serves_where_no_data_are(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    bundle = tmp_path / "it.zip"
    answer = run_cli("bundle", "distilled", "--output", bundle, "--store", made / "store",
                     "--data-dir", made)
    assert answer.exit_code == 0, answer.stderr
    assert run_cli("bundle", "verify", bundle).exit_code == 0
    assert run_cli("bundle", "unpack", bundle, tmp_path / "open").exit_code == 0
    generated = next((tmp_path / "open" / "generated").glob("*.csv"))
    lines = generated.read_text().splitlines()
    queries = tmp_path / "queries.csv"
    queries.write_text("\n".join(",".join(line.split(",")[:3]) for line in lines) + "\n")
    answer = run_cli("generate", "--model", bundle, "--od", queries, "-o", tmp_path / "mine.csv")
    assert answer.exit_code == 0, answer.stderr
    assert sorted((tmp_path / "mine.csv").read_text().splitlines()) == sorted(lines)
    refused = run_cli("generate", "--model", bundle, "--od", "train")
    assert refused.exit_code == 2
    assert "holds no train trips" in refused.stderr
    config = run_cli("generate", "--model", bundle, "--show-config", "--json")
    assert json.loads(config.stdout)["settings"]["generate.max_steps"] == {
        "value": 200, "source": "bundle it.zip"}


def test_bundle_without_roads_finds_its_city_by_hash_or_names_it(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    bundle = tmp_path / "it.zip"
    places = ("--store", made / "store", "--data-dir", made)
    assert run_cli("bundle", "distilled", "--without-city", "-o", bundle, *places).exit_code == 0
    line = ("generate", "--model", bundle, "--num", "2", "--output", tmp_path / "mine.csv")
    refused = run_cli(*line)
    assert refused.exit_code == 2
    assert "which is not here: tried its hash among 0 in" in refused.stderr
    assert "was made with city smoke (hash" in refused.stderr
    answer = run_cli(*line, "--data-dir", made)
    assert answer.exit_code == 0, answer.stderr


def test_bundle_tells_facts_and_keeps_home_to_itself(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    bundle = tmp_path / "it.tar.zst"
    for name in (bundle, tmp_path / "again.tar.zst"):
        assert run_cli("bundle", "distilled", "--output", name, "--store", made / "store",
                       "--data-dir", made).exit_code == 0
    assert bundle.read_bytes() == (tmp_path / "again.tar.zst").read_bytes()
    run_cli("bundle", "unpack", bundle, tmp_path / "open")
    opened = tmp_path / "open"
    card = (opened / "MODEL_CARD.md").read_text("utf-8")
    assert "distilled from LM-TAD" in card
    assert "test_accuracy" in card
    settings = json.loads((opened / "settings.json").read_text())
    assert settings["city"]["source"] is None
    assert not {"host", "pid", "argv"} & set(json.loads((opened / "run.json").read_text()))
    texts = [path.read_bytes() for path in opened.rglob("*") if path.is_file()]
    assert not [text for text in texts if str(made).encode() in text]
    environment = json.loads((opened / "environment.json").read_text())
    assert {"torch", "numpy", "scipy", "hoserkd"} <= set(environment["versions"])
    assert "made up by hoserkd" in (opened / "LICENCES.md").read_text("utf-8")
    assert not list(opened.rglob("entered_at_s.npy"))
    assert (opened / "evaluation" / "report.html").is_file()
    assert (opened / "metrics" / "steps.csv").read_text().startswith("step,name,value\n")


def test_bundle_holds_recorded_trips_only_where_they_are_asked_for(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    from hoserkd.engine.city.storage import load_city

    city = load_city(made / "cities" / "smoke")
    generated = list(made.glob("store/runs/*/generated/*.csv"))
    bundle = made / "distilled.tar.zst"
    assert {"evaluation/report.html", "evaluation/distilled-trips.geojson"} <= members(
        bundle).keys()
    assert holders_of_recorded_trips(bundle, city, generated) == {}
    assert b"This bundle holds none of them" in members(bundle)["LICENCES.md"]
    assert json.loads(members(bundle)["manifest.json"])["about"]["recorded_trips"] is False
    words = (str(made), str(made.parent), str(Path.home()), platform.node())
    assert holders_of(bundle, *(word for word in words if len(word) > 5)) == {}
    whole = tmp_path / "whole.tar.zst"
    answer = run_cli("bundle", "distilled", "--with-real-trips", "--output", whole,
                     "--store", made / "store", "--data-dir", made)
    assert answer.exit_code == 0, answer.stderr
    found = holders_of_recorded_trips(whole, city, generated)
    assert found.keys() >= {"evaluation/report.html", "evaluation/distilled-trips.geojson"}
    assert b"THIS BUNDLE HOLDS SOME OF THEM" in members(whole)["LICENCES.md"]


def test_bundle_leaves_out_what_it_does_not_know(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    from hoserkd.store.runs import RunStore

    folder = Path(RunStore(made / "store").run("distilled", kind="train").directory) / "generated"
    recorded = made / "sources" / "smoke" / "test.csv"
    foreign = {"mine.csv": recorded.read_bytes(), "notes.txt": b"x", "report.html": b"<html>",
               "old.geojson": b'{"features": [{"properties": {"name": "mine"}}]}'}
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    try:
        answer = run_cli("bundle", "distilled", "--output", tmp_path / "it.tar.zst", "--store",
                         made / "store", "--data-dir", made)
    finally:
        for name in foreign:
            (folder / name).unlink()
    assert answer.exit_code == 0, answer.stderr
    assert not {f"generated/{name}" for name in foreign} & members(tmp_path / "it.tar.zst").keys()
    assert "left out, as they could hold recorded trips: generated/mine.csv" in answer.stderr


def test_bundle_verify_damaged_fails_and_lists_faults(
    tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    from hoserkd.engine.bundle import write_bundle

    path = tmp_path / "x.zip"
    write_bundle(path, {"a": b"one" * 99}, {})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    answer = run_cli("bundle", "verify", path, "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout)["faults"]
    answer = run_cli("bundle", "unpack", path, tmp_path / "out")
    assert answer.exit_code == 2
    assert "not unpacked" in answer.stderr


def test_bundle_of_an_unknown_run_names_the_way_out(run_cli: Callable[..., Any]) -> None:
    answer = run_cli("bundle", "nothing")
    assert answer.exit_code == 2
    assert "hint:" in answer.stderr


def test_library_page_runs_as_written(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "library.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)
    monkeypatch.setenv("DEMO", str(made))
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "library.md", "exec"), names)
    assert names["answer"].probability.sum() == pytest.approx(1)
    assert len(names["trips"]) == 8


def test_deploy_page_runs_as_written_where_hoserkd_is_not(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "deploy.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSERKD_HOME", str(made))
    line = re.findall(r"^hoserkd (.*)$", page, re.M)[0]
    answer = run_cli(*line.split())
    assert answer.exit_code == 0, answer.stderr
    script = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0]
    (tmp_path / "ask.py").write_text(f"import sys\nsys.modules['hoserkd'] = None\n{script}")
    done = subprocess.run([sys.executable, "ask.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"0 -> \d+: \d+% after \d+ s", done.stdout)


def test_tui_pictures_of_every_page_of_a_demo(
    made: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    for page in ("runs", "map", "evaluation"):
        picture = tmp_path / f"{page}.svg"
        answer = run_cli("tui", "--store", made / "store", "--data-dir", made, "--screen", page,
                         "--run", "distilled", "--size", "100x30", "--screenshot", picture)
        assert answer.exit_code == 0, answer.stderr
        assert "distilled" in picture.read_text("utf-8") or page == "map"
    assert run_cli("tui", "--screen", "rums").stderr.startswith("error: --screen rums")
    assert run_cli("tui", "--screenshot", "x.gif").exit_code == 2
    assert "needs a terminal" in run_cli("tui").stderr
