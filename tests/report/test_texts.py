import json
from dataclasses import replace

import numpy as np
import pytest

from hoserkd.engine.metrics.baselines import FLOOR, SHORTEST
from hoserkd.engine.metrics.catalogue import BY_NAME, ONE_TRAINING
from hoserkd.engine.metrics.evaluation import comparison_json
from hoserkd.engine.metrics.statistics import Figure
from hoserkd.report.geojson import road_features, trip_features
from hoserkd.report.html import render_html
from hoserkd.report.markdown import render_markdown
from hoserkd.report.roadmap import map_view
from hoserkd.report.strips import strip
from hoserkd.report.tables import (
    comparison_table,
    figure_text,
    headline_table,
    level_tables,
    p_text,
    scenario_table,
    value_text,
)
from hoserkd.report.words import comparison_sentence, run_sentences, summary
from hoserkd.text import markdown_text


@pytest.mark.parametrize(("value", "name", "text"), [
    (None, "edr", "–"), (float("nan"), "edr", "–"), (0.1234, "edr", "0.123"),
    (0.9876, "completion", "98.8 %"), (0.00012, "distance_jsd", "1.2e-04"),
    (1234.5, "time_mae_s", "1,234.5"), (0.0, "edr", "0.000")])
def test_values_are_told_as_their_unit_asks(value, name, text):
    assert value_text(value, BY_NAME[name]) == text


def test_a_figure_is_told_with_its_interval():
    assert figure_text(Figure(0.5, 0.25, 0.75), BY_NAME["completion"]) == "50.0 % [25.0, 75.0]"
    assert figure_text(Figure(0.5), BY_NAME["edr"]) == "0.500"
    assert figure_text(Figure(1.0, 1.0, 1.0), BY_NAME["completion"]) == "100.0 %"


def test_small_p_values_are_not_told_in_full():
    assert p_text(1e-9) == "< 0.001"
    assert p_text(0.0312) == "0.031"


def test_headline_table_has_runs_and_references_as_columns(report):
    table = headline_table(report)
    assert table.columns[0] == "metric"
    assert table.columns[3:] == ("floor", "shortest path", "most frequent turns")
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_every_figure_of_the_runs_stands_in_a_level_table(report):
    shown = {row[0] for table in level_tables(report) for row in table.rows}
    for run in report.runs:
        for name in run.evaluation.figures:
            assert any(text.startswith(BY_NAME[name].label) for text in shown), name


def test_scenario_rows_have_as_many_cells_as_columns(report):
    table = scenario_table(report, 0)
    assert {"weekday", "weekend"} <= {row[0] for row in table.rows}
    assert all(len(row) == len(table.columns) for row in table.rows)


def judged(report, value, floor, ceiling):
    found = report.runs[0].evaluation
    figures = {**found.figures, "distance_jsd": Figure(value)}
    references = {**found.references,
                  FLOOR: {**found.references[FLOOR], "distance_jsd": floor},
                  SHORTEST: {**found.references[SHORTEST], "distance_jsd": Figure(ceiling)}}
    return run_sentences(replace(found, figures=figures, references=references))[1]


def test_the_verdict_follows_from_where_the_figure_stands(report):
    floor = Figure(0.10, 0.08, 0.12)
    assert "cannot be told from other real trips" in judged(report, 0.11, floor, 0.5)
    assert "75 % of the way" in judged(report, 0.20, floor, 0.5)
    assert "no nearer than shortest paths" in judged(report, 0.6, floor, 0.5)


def test_the_comparison_names_a_winner_only_where_holm_allows_it(report):
    found = report.comparisons[0]
    test = next(iter(found.tests.values()))
    won = replace(found, tests={"dtw_km": replace(test, p_holm=0.01, effect=-0.5)})
    lost = replace(found, tests={"dtw_km": replace(test, p_holm=0.01, effect=0.5)})
    even = replace(found, tests={"dtw_km": replace(test, p_holm=0.2, effect=-0.5)})
    assert f"{found.a} is better in DTW" in comparison_sentence(won)
    assert f"{found.b} is better in DTW" in comparison_sentence(lost)
    assert "no difference" in comparison_sentence(even)


def test_higher_completion_is_better(report):
    found = report.comparisons[0]
    test = next(iter(found.tests.values()))
    won = replace(found, tests={"completion": replace(test, p_holm=0.01, effect=0.5)})
    assert f"{found.a} is better" in comparison_sentence(won)


def test_the_summary_has_a_part_a_run_and_one_for_the_comparisons(report):
    assert [part.place for part in summary(report)] == [0, 1, 2]


def test_markdown_tables_have_even_rows(report):
    text = render_markdown(report)
    assert text.startswith("# fast and")
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        bars = {line.replace("\\|", "").count("|") for line in rows}
        assert len(bars) <= 1


def test_strip_marks_runs_floor_and_rules():
    drawn = strip([Figure(0.2, 0.1, 0.3), None], Figure(0.1), [Figure(0.5), Figure(None)])
    assert (drawn.count("ring"), drawn.count("cross"), drawn.count('"dot ')) == (1, 1, 1)
    assert strip([Figure(0.2)], None, []) == ""


def test_the_map_draws_every_street_once_and_samples_requests(report):
    view = map_view(tuple(run.evaluation for run in report.runs), 5)
    network = report.first.truth.network
    assert sum(path.count("M") for path in view.zones) == network.roads // 2
    assert len(view.trips) == len(view.recorded) == 5
    for trip, recorded in zip(view.trips, view.recorded, strict=True):
        assert recorded["roads"] >= 2
        assert len(trip["runs"]) == 2
    assert 0 < view.scale_units <= view.width / 4 + 1


def test_geojson_holds_each_trip_and_its_real_partner(report):
    found = report.runs[0].evaluation
    features = json.loads(json.dumps(trip_features(found), allow_nan=False))["features"]
    made = [f for f in features if f["properties"]["source"] == "fast"]
    real = [f for f in features if f["properties"]["source"] == "real"]
    assert len(made) == found.counts["trips"]
    assert len(real) == found.counts["pairs"]
    partner = {f["properties"]["pair"]: f for f in real}
    for feature in made:
        line = feature["geometry"]["coordinates"]
        assert len(line) >= 2
        assert all(-180 <= x <= 180 and -90 <= y <= 90 for x, y in line)
        assert not feature["properties"]["start"].endswith("Z")
        assert feature["properties"]["pair"] is None or feature["properties"]["pair"] in partner


def test_geojson_of_roads_counts_all_visits(report):
    found = report.runs[0].evaluation
    roads = road_features(found)["features"]
    visits = np.array([f["properties"]["visits_generated"] for f in roads])
    assert visits.sum() == len(found.rating.trips.road)
    assert sum(f["properties"]["visits_real"] for f in roads) == len(found.truth.trips.road)


def test_every_face_says_what_a_comparison_of_two_trainings_cannot_tell(report):
    """Terminal and Markdown show the tables; the page and the document have their own tests."""
    assert "hoserkd study" in ONE_TRAINING
    assert ONE_TRAINING in comparison_table(report.comparisons[0]).caption
    assert ONE_TRAINING in [line for part in summary(report) for line in part.sentences]
    assert markdown_text(ONE_TRAINING) in render_markdown(report)
    assert ONE_TRAINING in render_html(report)
    assert comparison_json(report.comparisons[0])["caution"] == ONE_TRAINING
