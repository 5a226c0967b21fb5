"""hoserkd's engine, and its public interface: the names of `__all__`, which stay as they are.

They are loaded when they are first used, so that importing this package costs nothing. Modules
below it may be imported too, but may change between versions. `docs/library.md` shows their use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hoserkd.engine.bundle import OpenBundle, open_bundle
    from hoserkd.engine.city.storage import City, load_city
    from hoserkd.engine.config import EvaluateConfig, GenerateConfig
    from hoserkd.engine.deployment.program import (
        NextRoadsExport,
        export_next_roads,
        save_next_roads,
    )
    from hoserkd.engine.evaluate import compare_evaluations
    from hoserkd.engine.library import (
        TripRequest,
        build_queries,
        join_trips,
        judge_trips,
        made_by,
        search_trips,
    )
    from hoserkd.engine.metrics.comparison import Comparison
    from hoserkd.engine.metrics.evaluation import Evaluation
    from hoserkd.engine.metrics.statistics import Figure
    from hoserkd.engine.predict import NextRoads, Predictor
    from hoserkd.engine.search.od import draw_queries
    from hoserkd.engine.search.queries import Queries
    from hoserkd.engine.student.storage import LoadedStudent, StudentMeta, load_student
    from hoserkd.engine.trips.generated import load_generated, save_generated
    from hoserkd.engine.trips.maker import TripsMaker
    from hoserkd.engine.types import GeneratedTrips, RoadNetwork, TrajectorySet

_HOMES = {
    "bundle": ("OpenBundle", "open_bundle"),
    "city.storage": ("City", "load_city"),
    "config": ("EvaluateConfig", "GenerateConfig"),
    "deployment.program": ("NextRoadsExport", "export_next_roads", "save_next_roads"),
    "evaluate": ("compare_evaluations",),
    "library": ("TripRequest", "build_queries", "join_trips", "judge_trips", "made_by",
                "search_trips"),
    "metrics.comparison": ("Comparison",),
    "metrics.evaluation": ("Evaluation",),
    "metrics.statistics": ("Figure",),
    "predict": ("NextRoads", "Predictor"),
    "search.od": ("draw_queries",),
    "search.queries": ("Queries",),
    "student.storage": ("LoadedStudent", "StudentMeta", "load_student"),
    "trips.generated": ("load_generated", "save_generated"),
    "trips.maker": ("TripsMaker",),
    "types": ("GeneratedTrips", "RoadNetwork", "TrajectorySet"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "City",
    "Comparison",
    "EvaluateConfig",
    "Evaluation",
    "Figure",
    "GenerateConfig",
    "GeneratedTrips",
    "LoadedStudent",
    "NextRoads",
    "NextRoadsExport",
    "OpenBundle",
    "Predictor",
    "Queries",
    "RoadNetwork",
    "StudentMeta",
    "TrajectorySet",
    "TripRequest",
    "TripsMaker",
    "build_queries",
    "compare_evaluations",
    "draw_queries",
    "export_next_roads",
    "join_trips",
    "judge_trips",
    "load_city",
    "load_generated",
    "load_student",
    "made_by",
    "open_bundle",
    "save_generated",
    "save_next_roads",
    "search_trips",
]


if not TYPE_CHECKING:  # or a name that does not exist would pass mypy

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first asked for."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names beside those that are loaded."""
    return sorted({*globals(), *__all__})
