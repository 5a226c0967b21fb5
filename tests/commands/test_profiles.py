import json
from collections.abc import Callable
from pathlib import Path


def test_list_names_every_shipped_profile(run_cli: Callable) -> None:
    document = json.loads(run_cli("profiles", "list", "--json").stdout)
    assert [p["name"] for p in document["profiles"]] == [
        "beijing", "demo", "porto", "san_francisco", "smoke"]


def test_show_gives_value_source_and_meaning(run_cli: Callable) -> None:
    document = json.loads(run_cli("profiles", "show", "porto", "--json").stdout)
    clip, name = document["settings"]["train.clip"], document["settings"]["city.name"]
    assert (clip["value"], clip["source"][:15]) == (1.0, "profile beijing")
    assert clip["description"] == "Largest norm of the gradient."
    assert (name["value"], name["source"][:13]) == ("porto", "profile porto")


def test_show_changed_leaves_defaults_out(run_cli: Callable) -> None:
    out = run_cli("profiles", "show", "demo", "--changed").stdout
    assert "city.demo_roads" in out
    assert "train.clip" not in out


def test_show_takes_a_path(run_cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\nseed: 5\n")
    document = json.loads(run_cli("profiles", "show", path, "--json").stdout)
    assert document["settings"]["seed"]["value"] == 5


def test_show_config_of_any_command_tells_the_source_of_each_value(run_cli: Callable) -> None:
    answer = run_cli("profiles", "show", "demo", "--show-config", "--json", "--seed", "3",
                     "--set", "train.epochs=9", "--store", "/somewhere")
    document = json.loads(answer.stdout)
    assert document["settings"]["seed"] == {"value": 3, "source": "--seed"}
    assert document["settings"]["train.epochs"]["source"] == "--set train.epochs"
    assert document["paths"]["store"] == "/somewhere"


def test_bad_profile_exits_2_with_every_finding(run_cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("train:\n  epocs: 3\nseeed: 1\n")
    answer = run_cli("profiles", "show", path)
    assert answer.exit_code == 2
    assert "did you mean train.epochs?" in answer.stderr
    assert "did you mean seed?" in answer.stderr
