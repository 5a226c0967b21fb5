"""The plain functions behind the dashboard."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from hoserkd.tui.drawing import bar, clipped, figure, parts_of, short_span, stacked_bar, timing_bars
from hoserkd.tui.following import Following
from hoserkd.tui.snapshot import (
    Curve,
    RunDetail,
    RunRow,
    curves_of,
    settings_against,
    settings_diff,
    thinned,
    time_left_s,
)
from hoserkd.tui.views.chart import MARKS, mark_places
from hoserkd.tui.views.run import charts_of
from hoserkd.tui.views.runs import COLUMNS, matching, ordered

ROW = RunRow("26-a", "vanilla", "train", "demo", "finished")


def test_thinned_long_curve_keeps_extremes_and_the_newest_value() -> None:
    draw = random.Random(0)
    points = [(float(i), draw.random()) for i in range(5000)]
    points[1234] = (1234.0, 9.0)
    points[4321] = (4321.0, -9.0)
    curve = thinned("loss", points, 300)
    assert len(curve.step) <= 300
    assert list(curve.step) == sorted(curve.step)
    assert max(curve.value) == 9.0
    assert min(curve.value) == -9.0
    assert curve.last == points[-1][1]


def test_thinned_short_curve_is_left_alone_without_what_is_no_number() -> None:
    curve = thinned("loss", [(1.0, 2.0), (2.0, math.nan), (3.0, math.inf), (4.0, 1.0)])
    assert (curve.step, curve.value) == ((1.0, 4.0), (2.0, 1.0))


def test_curves_of_rows_out_of_order_sorts_them() -> None:
    curves = curves_of([(2, "b", 5.0), (1, "b", 4.0), (1, "a", 3.0)])
    assert list(curves) == ["a", "b"]
    assert curves["b"].value == (4.0, 5.0)


@pytest.mark.parametrize(("step", "total", "speed", "left"), [
    (50, 100, 5.0, 10.0), (100, 100, 5.0, 0.0), (50, None, 5.0, None), (50, 100, 0.0, None)])
def test_time_left_s_follows_from_the_speed(step: int, total: int | None, speed: float,
                                            left: float | None) -> None:
    assert time_left_s(step, total, speed) == left


def test_settings_against_profile_puts_differences_first() -> None:
    settings = settings_against({"train": {"epochs": 3, "clip": None}, "seed": 1},
                                {"train": {"epochs": 10, "clip": None}, "seed": 1})
    assert (settings[0].key, settings[0].value, settings[0].profile_value) == (
        "train.epochs", "3", "10")
    assert not any(setting.differs for setting in settings[1:])


def test_settings_diff_shows_only_what_differs() -> None:
    one = RunDetail(ROW, settings=settings_against({"a": 1, "b": 2}, None))
    two = RunDetail(ROW, settings=settings_against({"a": 1, "b": 3, "c": True}, None))
    assert settings_diff([one, two]) == [("b", ["2", "3"]), ("c", ["-", "yes"])]


def test_matching_words_must_all_occur() -> None:
    runs = (ROW, replace(ROW, run_id="26-b", name="hot", tags=("paper",), status="failed"))
    assert [run.run_id for run in matching(runs, "fail paper")] == ["26-b"]
    assert matching(runs, "paper finished") == ()
    assert matching(runs, "") == runs


def test_ordered_by_accuracy_puts_unknown_last_both_ways() -> None:
    runs = tuple(replace(ROW, run_id=str(i), val_accuracy=value)
                 for i, value in enumerate((0.2, None, 0.9)))
    column = next(column for column in COLUMNS if column.title == "val acc")
    assert [run.run_id for run in ordered(runs, column, True)] == ["2", "0", "1"]
    assert [run.run_id for run in ordered(runs, column, False)] == ["0", "2", "1"]


def test_charts_of_unknown_metric_gets_a_chart_of_its_own() -> None:
    curves = curves_of([(1, "loss", 1.0), (1, "loss_kl", 1.0), (1, "odd", 1.0)])
    assert [title for title, _ in charts_of(curves)] == ["loss", "KL", "odd"]


def test_bar_and_figures_have_their_widths() -> None:
    assert bar(0.5, 8) == "████    "
    assert len(bar(0.03, 5)) == 5
    assert bar(7.0, 2) == "██"
    assert [short_span(s) for s in (None, 4, 3725, 200_000)] == ["-", "0:04", "1h02", "2d07h"]
    assert [figure(v) for v in (None, 0.81234, 1234.5, 3.0)] == ["-", "0.8123", "1,234", "3"]
    assert len(stacked_bar([1, 1, 2], 20).plain) == 20
    assert stacked_bar([1, 1, 2], 20).plain.count(" ") == 17
    assert "40%" in timing_bars({"data": 2.0, "forward": 3.0}, 40).plain
    assert parts_of({"data": 2.0, "forward": 3.0, "step": 6.0})["other"] == 1.0


def _write(path: Path, events: list[dict[str, object]], mode: str = "w") -> None:
    with path.open(mode) as file:
        for number, event in enumerate(events):
            file.write(json.dumps({"seq": number + 1, "t": 1.7e9, **event}) + "\n")


def test_following_spool_sees_growth_rewind_and_torn_line(tmp_path: Path) -> None:
    spool = tmp_path / "events.jsonl"
    following = Following(tmp_path, whole=True)
    assert not following.advance()
    _write(spool, [{"type": "step", "step": s, "epoch": 0, "total": 9, "m": {"loss": 1.0 / s},
                    "ms": {"data": 2.0, "forward": s}} for s in (1, 2, 3)])
    assert following.advance()
    assert not following.advance()
    with spool.open("a") as file:
        file.write('{"seq": 9, "type": "st')
    assert not following.advance()
    assert following.timings_ms() == {"data": 2.0, "forward": 2.0}
    spool.write_text("".join(spool.read_text().splitlines(keepends=True)[:3]))
    _write(spool, [{"type": "rewind", "step": 1},
                   {"type": "step", "step": 2, "epoch": 0, "total": 9, "m": {"loss": 7.0}},
                   {"type": "note", "level": "warning", "message": "slow"},
                   {"type": "end", "status": "finished", "message": ""}], "a")
    following.advance()
    assert following.curves()["loss"].value == (1.0, 7.0)
    assert "warning: slow" in following.notes()[-2]
    assert (following.step, following.total_steps) == (2, 9)
    assert following.pace_per_s is None


def test_following_speed_comes_from_the_clock_of_the_events(tmp_path: Path) -> None:
    _write(tmp_path / "events.jsonl", [
        {"type": "step", "step": s, "epoch": 0, "total": 90, "m": {}, "t": 1e9 + s / 4}
        for s in range(60)])
    following = Following(tmp_path, whole=False)
    following.advance()
    assert following.pace_per_s == pytest.approx(4.0)


def test_following_newest_only_reads_the_end_of_a_long_spool(tmp_path: Path) -> None:
    _write(tmp_path / "events.jsonl", [
        {"type": "step", "step": s, "epoch": 0, "total": 9000, "m": {"loss": float(s)}}
        for s in range(9000)])
    following = Following(tmp_path, whole=False)
    following.advance()
    assert following.metrics == {"loss": 8999.0}
    assert following.curves() == {}


@pytest.mark.parametrize(("text", "shown"), [
    ("vanilla", "vanilla"), ("sixteen-letters-", "sixteen-letters-"),
    ("seventeen-letters", "seventeen-lette…")])
def test_clipped_name_never_runs_into_the_next_column(text: str, shown: str) -> None:
    assert clipped(text, 16) == shown


def test_mark_places_of_equal_curves_never_coincide_and_lie_on_the_line() -> None:
    curve = Curve("a", (0.0, 10.0, 20.0), (0.0, 1.0, 0.0))
    places = [mark_places(curve, index, 6) for index in range(6)]
    assert len({x for xs, _ in places for x in xs}) == 6 * MARKS
    assert all(y == pytest.approx(1 - abs(x - 10) / 10) for xs, ys in places
               for x, y in zip(xs, ys, strict=True))
