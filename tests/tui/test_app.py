"""The dashboard driven by its keys."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from literals import LiteralSource
from textual import events
from textual.pilot import Pilot
from textual.widgets import Button, DataTable, Input, Static

from hoserkd.store.elsewhere import OtherStore
from hoserkd.tui.app import Dashboard
from hoserkd.tui.views.chart import Chart
from hoserkd.tui.views.dialogs import HelpScreen
from hoserkd.tui.views.map import MapCanvas
from hoserkd.tui.views.runs import RunsView
from hoserkd.tui.views.tables import CalmTable

SIZES = [(80, 24), (160, 48)]


async def _settle(pilot: Pilot[None]) -> None:
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause()


def _run(source: LiteralSource) -> Dashboard:
    return Dashboard(source, run_id=source.runs[0].run_id)


@pytest.mark.parametrize("size", SIZES)
async def test_runs_page_shows_every_run_and_what_fits(source: LiteralSource,
                                                       size: tuple[int, int]) -> None:
    app = _run(source)
    async with app.run_test(size=size) as pilot:
        await _settle(pilot)
        table = app.query_one("#runs-table", DataTable)
        assert table.row_count == 6
        titles = [str(column.label) for column in table.columns.values()]
        assert {"state", "profile", "trips/s", "KL", "ETA", "tags"} <= set(titles)
        assert (table.virtual_size.width <= size[0]) == (size[0] >= 160)
        await pilot.press(*["right"] * 30)
        assert (table.scroll_x > 0) == (size[0] < 160)
        assert "6 runs, 1 at work" in str(app.query_one("#runs-summary", Static).render())


async def test_runs_page_resized_keeps_the_cursor(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("down", "down")
        assert app.query_one(RunsView).current == source.runs[2].run_id
        await pilot.resize_terminal(160, 48)
        await _settle(pilot)
        assert app.query_one(RunsView).current == source.runs[2].run_id


async def test_runs_page_filter_sort_and_mark_then_compare(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        await pilot.press("slash", *"train", "enter")
        await _settle(pilot)
        view = app.query_one(RunsView)
        assert view.table.row_count == 5
        await pilot.press("space", "down", "space")
        await pilot.press("s", "s")
        assert "name↓" in [str(c.label) for c in view.table.columns.values()]
        await pilot.press("3")
        await _settle(pilot)
        chart = app.query_one("#compare-chart", Chart)
        assert chart.display
        assert "distilled" in str(chart.border_title)
        assert app.query_one("#compare-table", DataTable).row_count == 2


@pytest.mark.parametrize("size", SIZES)
async def test_run_page_opened_by_enter_shows_curves_and_panels(
        source: LiteralSource, size: tuple[int, int]) -> None:
    app = _run(source)
    async with app.run_test(size=size) as pilot:
        await _settle(pilot)
        await pilot.press("enter")
        await _settle(pilot)
        shown = [chart for chart in app.query("#run-charts Chart").results(Chart) if chart.display]
        assert len(shown) == (4 if size[0] >= 120 else 1)
        assert "loss" in str(shown[0].border_title)
        await pilot.press("p")
        assert app.query_one("#panel-settings").display
        assert app.query_one("#panel-time").display == (size[0] >= 120)
        assert "≠ train.epochs = 3" in str(app.query_one("#text-settings", Static).render())
        await pilot.press("x", "n")
        assert source.asked == []
        await pilot.press("x", "y")
        assert source.asked == [f"stop {source.runs[0].run_id}"]


async def test_help_opens_and_closes_and_q_quits(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpScreen)
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0


async def test_snapshot_that_comes_while_a_window_is_open_is_shown(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("question_mark")
        source.trouble = "busy"
        app.read()
        await _settle(pilot)
        await pilot.press("escape")
        assert app.query_one("#notice", Static).display


async def test_tag_is_asked_for_and_given_on(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("t", *"best", "enter")
        await _settle(pilot)
        assert source.asked == [f"tag {source.runs[0].run_id} best"]


async def test_trouble_with_the_store_is_shown_not_raised(source: LiteralSource) -> None:
    source.trouble = "another process holds the database"
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        notice = app.query_one("#notice", Static)
        assert notice.display
        assert "another process" in str(notice.render())


async def test_tune_page_shows_trials_and_what_accuracy_follows(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        await pilot.press("4")
        await _settle(pilot)
        assert app.query_one("#tune-table", DataTable).row_count == 7
        told = str(app.query_one("#tune-importance", Static).render())
        assert "lambda_kl" in told
        assert "70%" in told
        head = str(app.query_one("#tune-head", Static).render())
        assert "6 of 6 trials: 5 complete, 1 pruned." in head
        assert "Trial 4 is best" in head


async def test_evaluation_page_shows_figures_and_intervals_on_i(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        await pilot.press("5")
        await _settle(pilot)
        table = app.query_one("#judged-table", DataTable)
        assert [str(cell) for cell in table.get_row_at(0)[1:4]] == ["0.02", "0.03", "0.01"]
        await pilot.press("i")
        assert str(table.get_row_at(0)[1]) == "0.02 [0.01, 0.05]"
        tests = app.query_one("#judged-tests", DataTable)
        assert [str(cell) for cell in tests.get_row_at(0)] == [
            "DTW, km", "≠ differ", "0.003", "vanilla 0.41", "distilled 0.38"]


async def test_an_empty_store_offers_the_others_and_enter_opens_one() -> None:
    stores = (OtherStore(Path("/home/me/demo/store"), 9), OtherStore(Path("/data/store"), 2))
    source = LiteralSource(runs=(), other_stores=stores)
    app = Dashboard(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        assert "9 runs in /home/me/demo/store" in _seen(app)
        assert "Enter opens one of the others" in _seen(app)
        await pilot.press("down", "enter")
        app.read()
        await _settle(pilot)
        assert source.asked == ["open /data/store"]
        assert app.query_one("#runs-table", DataTable).row_count == 6
        assert "9 runs in" not in _seen(app)
        await pilot.press("down")
        assert app.query_one(RunsView).current is not None


async def test_map_page_without_a_city_says_why_and_shows_no_other_city(
        source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("6")
        await _settle(pilot)
        canvas = app.query_one(MapCanvas)
        assert canvas.city is not None
        source.map, source.map_missing = None, "run x was made with city tiny, which is not here"
        app.read()
        await _settle(pilot)
        assert "no map: run x was made with city tiny" in _seen(app)
        assert canvas.city is None


def _seen(app: Dashboard) -> str:
    return "\n".join("".join(segment.text for segment in line) for line in
                     app.screen._compositor.render_strips())


async def test_map_page_steps_zooms_and_pans(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("6")
        await _settle(pilot)
        canvas = app.query_one(MapCanvas)
        assert "O" in "".join(strip.text for strip in canvas._strips)
        before = canvas.get_view()
        await pilot.press("n")
        assert canvas.trip == (2, 3)
        assert "max steps" in str(app.query_one("#map-head", Static).render())
        await pilot.press("plus")
        closer = canvas.get_view()
        assert closer.east - closer.west < before.east - before.west
        await pilot.press("right")
        assert canvas.get_view().west > closer.west
        pulled = canvas.get_view()
        await pilot.mouse_down(canvas, offset=(40, 10))
        canvas.post_message(events.MouseMove(
            canvas, 45, 10, 5, 0, 1, False, False, False))
        await pilot.pause()
        assert canvas.get_view().west < pulled.west
        await pilot.press("r")
        await pilot.resize_terminal(100, 30)
        await _settle(pilot)
        assert canvas.get_view().columns == 100


async def test_launch_asks_shows_the_line_and_starts(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("N")
        await pilot.pause()
        app.screen.query_one("#launch-overrides", Input).value = "train.epochs"
        await pilot.pause()
        assert app.screen.query_one("#launch-start", Button).disabled
        app.screen.query_one("#launch-overrides", Input).value = "train.epochs=3"
        app.screen.query_one("#launch-name", Input).value = "mine"
        await pilot.pause()
        assert "hoserkd train --distill --profile demo --name mine --set train.epochs=3" in str(
            app.screen.query_one("#launch-line", Static).render()).replace("\n", " ")
        await pilot.click("#launch-start")
        await _settle(pilot)
        assert len(source.asked) == 1
        assert "train.epochs=3" in source.asked[0]


async def test_command_palette_offers_pages_and_the_start_of_a_run(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)):
        offered = [command.title for command in app.get_system_commands(app.screen)]
        assert {"Page: Map", "Start a run", "Theme"} <= set(offered)


async def test_other_theme_draws_every_page(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = "textual-light"
        for key in "1234567":
            await pilot.press(key)
            await _settle(pilot)


async def test_failed_start_is_told(source: LiteralSource) -> None:
    source.news = ("hoserkd train failed: error: no city",)
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        assert any("no city" in str(note.message) for note in app._notifications)


async def test_empty_store_says_how_to_begin() -> None:
    app = Dashboard(LiteralSource(runs=()))
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        assert "hoserkd demo" in str(app.query_one("#runs-summary", Static).render())
        for key in "2345671":
            await pilot.press(key)
            await _settle(pilot)


async def test_mouse_on_a_page_s_name_goes_there_and_on_a_title_sorts(
        source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.click("#runs-table", offset=(15, 0))
        await _settle(pilot)
        assert "name↓" in [str(c.label) for c in app.query_one(RunsView).table.columns.values()]
        top = str(app.query_one("#top", Static).render())
        await pilot.click("#top", offset=(top.index("7 Store") + 2, 0))
        await _settle(pilot)
        assert app.query_one("#store-health").region.height > 0
        assert "most room" in str(app.query_one("#store-largest", Static).render())


async def test_run_under_the_cursor_is_stopped_only_when_at_work(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await _settle(pilot)
        await pilot.press("down", "x", "y", "up", "x", "y")
        await _settle(pilot)
        assert source.asked == [f"stop {source.runs[0].run_id}"]


async def test_state_of_every_page_survives_a_resize(source: LiteralSource) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        await pilot.press("slash", *"train", "enter", "s", "s", "up", "space", "up", "space")
        await pilot.press("2", "c", "p", "5", "i", "6", "n", "plus", "right")
        await _settle(pilot)
        before = (app.query_one(RunsView).current, app.query_one(MapCanvas).trip,
                  app.query_one("#judged-table", DataTable).get_row_at(0))
        place = app.query_one(MapCanvas)._centre
        for size in ((40, 12), (160, 48)):
            await pilot.resize_terminal(*size)
            await _settle(pilot)
        assert app.query_one(MapCanvas)._centre == place
        for key in "1256":
            await pilot.press(key)
            await _settle(pilot)
        assert before == (app.query_one(RunsView).current, app.query_one(MapCanvas).trip,
                          app.query_one("#judged-table", DataTable).get_row_at(0))
        assert "2 marked" in str(app.query_one("#runs-summary", Static).render())


async def test_figures_of_a_live_run_are_drawn_where_they_changed_and_nowhere_else(
        source: LiteralSource, monkeypatch: pytest.MonkeyPatch) -> None:
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        table = app.query_one(CalmTable)
        drawn: list[int] = []
        render = CalmTable._render_cell

        def count(self: CalmTable, row: int, *others: Any, **named: Any) -> Any:
            drawn.append(row)
            return render(self, row, *others, **named)

        monkeypatch.setattr(CalmTable, "_render_cell", count)
        source.runs = (replace(source.runs[0], val_accuracy=0.8765, step=131), *source.runs[1:])
        app.read()
        await _settle(pilot)
        assert set(drawn) == {0}
        assert "0.8765" in app.export_screenshot()
        assert str(table.get_row_at(0)[5]) == "0.8765"


async def test_names_of_strangers_are_shown_letter_by_letter(source: LiteralSource) -> None:
    name = "[/red][b]x"
    source.runs = tuple(replace(run, name=name, tags=("[/]",)) for run in source.runs)
    app = _run(source)
    async with app.run_test(size=(160, 48)) as pilot:
        await _settle(pilot)
        shown = {str(cell) for cell in app.query_one(RunsView).table.get_row_at(0)}
        assert {name, "[/]"} <= shown
