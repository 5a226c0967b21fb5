"""Values of foreign files that were cast, cut or overlooked: each is refused by row and column."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from five_roads import DATA, SMOKE

HERE = DATA / "13-foreign-values-truncated"
EVALUATE = (*SMOKE, "--set", "evaluate.bootstrap=0", "-o", "out")


@pytest.mark.parametrize(("name", "said"), [
    ("half.parquet", "half.parquet:1: [0.5, 1.0, 4.0] is no list of road ids (column rid_list)"),
    ("blank.csv", "blank.csv:2: origin '' is no road id"),
    ("both.csv", "columns rid_list and gene_trace_road_id are both there"),
])
def test_what_cannot_be_taken_as_it_is_written_is_refused(
    tiny: Path, run_cli: Callable[..., Any], name: str, said: str
) -> None:
    done = run_cli("evaluate", HERE / name, *EVALUATE)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_numbers_of_seconds_are_times(tiny: Path, run_cli: Callable[..., Any]) -> None:
    done = run_cli("evaluate", HERE / "epoch.parquet", *EVALUATE, "--export", "points-csv")
    assert done.exit_code == 0, done.stderr
    (points,) = (tiny / "out").glob("*points.csv")
    assert "2024-05-08T09:00:00" in points.read_text()


@pytest.mark.parametrize("column", ["origin", "destination"])
def test_requests_for_half_a_road_are_refused(
    tiny: Path, run_cli: Callable[..., Any], column: str
) -> None:
    table = pa.table({"origin": [0.0, 0.0], "destination": [4.0, 4.0]})
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([0.0, 0.5])), "od.parquet")
    done = run_cli("generate", "--run", "x", "--od", "od.parquet")
    assert done.exit_code == 2
    assert f"od.parquet:2: {column} 0.5 is no road id" in " ".join(done.stderr.split())
