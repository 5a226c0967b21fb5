"""Times that three readers read in three ways: one grammar answers for all of them."""

import csv
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from five_roads import CITY, DATA, SMOKE

from hoserkd.engine.city.storage import load_city
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.search.od import draw_queries
from hoserkd.engine.trips.loading import load_generated
from hoserkd.errors import DataError

HERE = DATA / "01-times-read-three-ways"
TAKEN = {"brackets", "jsonquotes", "leadzero", "negzero", "plain", "pyquotes", "tz"}
TIMES = {"dateonly", "empty_time", "epoch", "feb30", "minutes"}
"""Forms whose times are refused; their last time too, but for `empty_time`."""
NINE = 1715158800


def prepared(form: Path, tmp_path: Path) -> Any:
    source = tmp_path / "source"
    shutil.copytree(CITY, source)
    shutil.copyfile(form, source / "test.csv")
    prepare_city(CityConfig(zones=2, max_rejected_share=1.0), source, tmp_path / "city",
                 force=False, observer=Silent(), stop=never_stop)
    trips = load_city(tmp_path / "city").split("test")
    return trips.road.tolist(), trips.entered_at_s.tolist()


def evaluated(form: Path, network: Any) -> Any:
    trips = load_generated(form, network)
    return trips.road.tolist(), trips.entered_at_s.tolist()


def answer(read: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return read(*arguments)
    except DataError:
        return "refused"


@pytest.mark.parametrize("form", sorted((HERE / "forms").iterdir()), ids=lambda path: path.stem)
def test_every_form_gets_one_answer(form: Path, made_once: Path, tmp_path: Path) -> None:
    city = load_city(made_once / "cities" / "tiny")
    expected = (([0, 1, 4], [NINE, NINE + 14, NINE + 30]) if form.stem in TAKEN else "refused")
    assert answer(prepared, form, tmp_path) == expected
    assert answer(evaluated, form, city.network) == expected
    with form.open(newline="") as file:
        times = next(csv.DictReader(file))["time_list"]
    last = times.strip("[]").split(",")[-1].strip().strip("\"'")
    requests = tmp_path / "od.csv"
    requests.write_text(f"origin,destination,departure\n0,4,{last}\n")
    found = answer(lambda: draw_queries(city, str(requests), None, 0).departure_s.tolist())
    assert found == ("refused" if form.stem in TIMES - {"empty_time"} else [NINE + 30])


def test_times_with_an_offset_keep_their_wall_clock(
    tiny: Path, run_cli: Callable[..., Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = run_cli("evaluate", HERE / "trips.csv", *SMOKE, "--set", "evaluate.bootstrap=0",
                       "--export", "points-csv", "-o", "out", "--json")
    assert done.exit_code == 0, done.stderr
    assert "Warning" not in done.stderr
    (points,) = (tiny / "out").glob("*points.csv")
    assert "2024-05-08T09:00:00" in points.read_text().splitlines()[1]
    assert '"peak"' in done.stdout
    asked = run_cli("generate", "--run", "x", "--od", HERE / "od.csv", "-o", "made.csv")
    assert asked.exit_code == 0, asked.stderr
    assert ",2024-05-08T09:00:00Z," in (tiny / "made.csv").read_text()
