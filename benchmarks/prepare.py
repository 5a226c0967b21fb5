"""How long `hoserkd prepare` takes and how much memory, beside reading row by row.

    python -m benchmarks.prepare [--quick]

Cases: `san_francisco full` (real trips, from HOSERKD_REAL_DATA or ../shared/data; left out where
they are not) and `beijing size` (made up: 40,000 roads and as many trips as Beijing's, or a
twentieth of them with --quick).
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._report import REPOSITORY, Report, arguments, run_apart
from benchmarks.beijing_source import write_beijing_source
from benchmarks.plain_prepare import plain_seconds

QUICK_SHARE = 0.05
SAMPLE = 3000
QUICK_SAMPLE = 500


def prepare(source: str, directory: str) -> dict[str, Any]:
    """Prepare a city; return its statistics. Run in a process of its own by `main`."""
    from hoserkd.engine.config import CityConfig
    from hoserkd.engine.events import Silent, never_stop
    from hoserkd.engine.prepare import prepare_city

    report = prepare_city(CityConfig(), Path(source), Path(directory), force=True,
                          observer=Silent(), stop=never_stop)
    return report.statistics


def run_case(report: Report, case: str, source: Path, folder: Path, sample: int) -> None:
    """Measure one source folder and add its case."""
    ours = run_apart("benchmarks.prepare", "prepare", source=str(source), directory=str(folder))
    splits = ours.value["splits"]
    plain = plain_seconds(source, {name: row["trips"] for name, row in splits.items()}, sample)
    report.add(
        case, ours.seconds, plain, ours.peak_mb,
        roads=ours.value["roads"], adjacency_edges=ours.value["adjacency_edges"],
        trips=sum(row["trips"] for row in splits.values()),
        points=sum(row["trips"] + row["steps"] for row in splits.values()),
        plain_sample_trips=sample,
    )


def main() -> None:
    """Run all cases."""
    quick = arguments(str(__doc__).splitlines()[0]).quick
    sample = QUICK_SAMPLE if quick else SAMPLE
    report = Report("prepare")
    real = Path(os.environ.get("HOSERKD_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    work = Path(tempfile.mkdtemp(prefix="hoserkd-prepare-"))
    try:
        _compile(work)
        if (real / "san_francisco" / "roadmap.geo").is_file():
            run_case(report, "san_francisco full", real / "san_francisco", work / "sf", sample)
        else:
            print(f"{real}/san_francisco is not there: case left out", file=sys.stderr)
        share = QUICK_SHARE if quick else 1.0
        write_beijing_source(work / "source", share)
        case = "beijing size" if not quick else f"beijing size, {QUICK_SHARE:.0%} of the trips"
        run_case(report, case, work / "source", work / "beijing", sample)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    report.finish()


def _compile(work: Path) -> None:
    """Have the loops compiled: that is paid once a machine, not once a city."""
    from hoserkd.engine.city.synthetic import make_demo_source

    make_demo_source(work / "demo", 80, 60, 0)
    run_apart("benchmarks.prepare", "prepare", source=str(work / "demo"),
              directory=str(work / "compiled"))


if __name__ == "__main__":
    main()
