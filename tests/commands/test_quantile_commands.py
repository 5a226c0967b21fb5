"""A student with a quantile time head from the command line, from training to evaluation."""

import json

import pytest
import torch

from hoserkd.cli import main

SMALL = ("--set", "city.demo_roads=60", "--set", "city.demo_trips=50", "--profile", "smoke")
QUANTILE = ("--set", "student.time_head=quantile")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Return the options that name a home with the smoke city and the run `wide`."""
    home = tmp_path_factory.mktemp("smoke")
    options = [*SMALL, "--data-dir", str(home), "--store", str(home / "store"), "--quiet"]
    assert main(["prepare", "--demo", *options]) == 0
    assert main(["train", "--no-distill", "--name", "wide", *QUANTILE, *options]) == 0
    return options


def test_training_shows_the_figures_of_the_quantiles(run_cli, places):
    answer = run_cli("train", "--no-distill", *QUANTILE, "--set", "student.quantiles=[0.2,0.5,0.8]",
                     *places)
    assert answer.exit_code == 0, answer.stderr
    assert "time loss (pinball)" in answer.stdout.lower()
    assert "times within the interval" in answer.stdout.lower()
    shown = json.loads(run_cli("train", "--no-distill", *QUANTILE, "--json", *places).stdout)
    assert shown["metrics"].keys() >= {"val_loss_pinball", "test_time_coverage", "test_loss_time"}


@pytest.mark.parametrize("search", ["astar", "beam", "sample", "greedy"])
def test_trips_are_generated_by_every_search(run_cli, places, tmp_path, search):
    answer = run_cli("generate", "--run", "wide", "--search", search, "--output",
                     tmp_path / "trips.csv", *places)
    assert answer.exit_code == 0, answer.stderr
    assert len((tmp_path / "trips.csv").read_text().splitlines()) == 11


def test_a_run_is_judged_with_the_coverage_of_its_interval(run_cli, places, tmp_path):
    answer = run_cli("evaluate", "wide", "--output", tmp_path, *places)
    assert answer.exit_code == 0, answer.stderr
    [judged] = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"]
    figures = judged["metrics"]
    assert 0 <= figures["time_coverage"]["value"] <= 1
    assert figures["time_coverage_gap"]["value"] == pytest.approx(
        figures["time_coverage"]["value"] - 0.8)
    assert "Step times within the interval" in (tmp_path / "report.md").read_text()


def test_the_public_export_holds_the_median_and_says_so(run_cli, places, tmp_path):
    answer = run_cli("runs", "export", "wide", "--hoser", tmp_path / "best.pth",
                     *(o for o in places if o not in SMALL))
    assert answer.exit_code == 0, answer.stderr
    assert "the median alone" in answer.stderr
    weights = torch.load(tmp_path / "best.pth", weights_only=True)
    assert weights["navigator.time_estimator_linear_3.weight"].shape[0] == 1


def test_a_bundle_runs_and_its_card_names_the_quantiles(run_cli, places, tmp_path):
    packed = tmp_path / "wide.tar.zst"
    options = [o for o in places if o not in SMALL]
    answer = run_cli("bundle", "create", "wide", "--output", packed, *options)
    assert answer.exit_code == 0, answer.stderr
    assert run_cli("bundle", "unpack", packed, tmp_path / "open").exit_code == 0
    assert "| quantiles of the time | 0.1, 0.3, 0.5, 0.7, 0.9 |" in (
        tmp_path / "open" / "MODEL_CARD.md").read_text()
    (tmp_path / "pairs.csv").write_text(
        "origin,destination,departure\n1,9,2015-11-02T14:50:52Z\n4,7,2015-11-02T08:00:00Z\n")
    generated = run_cli("generate", "--model", packed, "--od", tmp_path / "pairs.csv",
                        "--output", tmp_path / "trips.csv", *options)
    assert generated.exit_code == 0, generated.stderr


@pytest.mark.parametrize(("value", "message"), [
    ("student.time_head=wide", "input should be 'point' or 'quantile', found 'wide'"),
    ("student.quantiles=[0.9,0.5]", "each must be larger than the one before it, found [0.9, 0.5]"),
    ("student.quantiles=[0.1,0.9]", "the median, 0.5, must be among them, found [0.1, 0.9]"),
    ("student.quantiles=[0.5,1]", "input should be less than 1, found 1"),
])
def test_wrong_settings_are_one_line_that_names_the_place(run_cli, value, message):
    answer = run_cli("train", "--profile", "smoke", "--set", value)
    key = value.partition("=")[0]
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0] == f"error: --set {key}: {key}: {message}"
