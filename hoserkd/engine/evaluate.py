"""Judging generated trips against the real ones of a city."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.events import Note, Observer, Progress, Silent
from hoserkd.engine.metrics.baselines import (
    FLOOR,
    FREQUENT,
    SHORTEST,
    STRAIGHTEST,
    frequent_turns,
    real_sample,
    same_queries,
    shortest_paths,
)
from hoserkd.engine.metrics.comparison import Comparison, QueryValues, compare, query_values
from hoserkd.engine.metrics.distributions import Histogram, histogram
from hoserkd.engine.metrics.model import ModelJudgement as ModelJudgement
from hoserkd.engine.metrics.model import perplexity_figure
from hoserkd.engine.metrics.packed import answered, departures_s, destinations, origins, take_trips
from hoserkd.engine.metrics.rating import (
    PER_TRIP,
    SHARE,
    Rating,
    RealSide,
    histogram_divergence,
    rate,
    real_side,
)
from hoserkd.engine.metrics.scenarios import Places, TripEnds, learn_places, scenario_masks
from hoserkd.engine.metrics.statistics import (
    Figure,
    Resampling,
    mean_figure,
    mean_figures,
    ratio_figure,
)
from hoserkd.engine.metrics.task import Reliability, most_frequent_next, straightest_next
from hoserkd.engine.types import GeneratedTrips, TrajectorySet
from hoserkd.errors import DataError

SCHEMA_VERSION = 1
Split = Literal["train", "test"]
SCENARIO_PAIRS = ("hausdorff_km", "dtw_km", "edr")
TripJudge = Callable[[TrajectorySet], tuple[np.ndarray, np.ndarray]]
"""Of each trip: the sum of a teacher's surprises in nats, and over how many tokens."""
STEP_TRIPS = 20_000
"""Real trips on which the rules for the next road are judged."""


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """The figures of one kind of trips."""

    trips: int
    """Generated trips (with at least two roads) of this kind."""
    real: int
    pairs: int
    figures: dict[str, Figure]
    floor: dict[str, Figure]
    """The divergences of equally many real trips of the other split."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The judgement of one set of generated trips."""

    name: str
    od: Split
    city: dict[str, Any]
    seed: int
    settings: EvaluateConfig
    counts: dict[str, int]
    reasons: dict[str, int]
    """How many searches ended for each reason."""
    figures: dict[str, Figure]
    real: dict[str, Figure]
    """Means of the real trips."""
    references: dict[str, dict[str, Figure]]
    """The floor and the ceilings, by name."""
    scenarios: dict[str, ScenarioResult]
    histograms: dict[str, Histogram]
    reliability: Reliability | None
    notes: tuple[str, ...]
    generated: GeneratedTrips
    rating: Rating
    queries: QueryValues
    truth: RealSide
    extra: dict[str, Any] = field(default_factory=dict)
    """What the caller adds to the JSON: where the trips came from."""

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as documented in docs/metrics.md."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "evaluation",
            "name": self.name,
            "od": self.od,
            "city": self.city,
            "seed": self.seed,
            "settings": self.settings.model_dump(mode="json"),
            "counts": self.counts,
            "reasons": self.reasons,
            "metrics": figures_json(self.figures),
            "real": figures_json(self.real),
            "references": {k: figures_json(v) for k, v in self.references.items()},
            "scenarios": {k: _scenario_json(v) for k, v in self.scenarios.items()},
            "histograms": {k: {"edge": v.edge.tolist(), "real": v.real.tolist(),
                               "generated": v.other.tolist()}
                           for k, v in self.histograms.items()},
            "reliability": _reliability_json(self.reliability),
            "notes": list(self.notes),
            **self.extra,
        }


def figures_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Return figures as objects of value, low, high and, where there is one, note."""
    return {name: {k: v for k, v in asdict(figure).items() if k != "note" or v}
            for name, figure in figures.items()}


def _scenario_json(result: ScenarioResult) -> dict[str, Any]:
    return {"trips": result.trips, "real": result.real, "pairs": result.pairs,
            "metrics": figures_json(result.figures), "floor": figures_json(result.floor)}


def _reliability_json(curve: Reliability | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {"confidence": [_number(x) for x in curve.confidence],
            "accuracy": [_number(x) for x in curve.accuracy], "count": curve.count.tolist()}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as documented in docs/metrics.md."""
    return asdict(found)


def evaluate_trips(
    generated: GeneratedTrips,
    city: City,
    config: EvaluateConfig,
    od: Split,
    *,
    name: str = "generated",
    seed: int = 0,
    model: ModelJudgement | None = None,
    observer: Observer | None = None,
) -> Evaluation:
    """Return the judgement of one set of trips. See `evaluate_runs`."""
    return evaluate_runs({name: generated}, city, config, od, seed=seed,
                         models={} if model is None else {name: model}, observer=observer)[name]


def evaluate_runs(
    runs: Mapping[str, GeneratedTrips],
    city: City,
    config: EvaluateConfig,
    od: Split,
    *,
    seed: int = 0,
    models: Mapping[str, ModelJudgement] | None = None,
    teacher: TripJudge | None = None,
    observer: Observer | None = None,
) -> dict[str, Evaluation]:
    """Return the judgement of several sets of trips against the real trips of one split.

    Args:
        runs: The sets by name. Equal queries make their floor and ceilings common.
        od: The split that the queries were drawn from; its trips are the real side, and the
            other split's are the floor.
        models: What the models behind the sets say step by step, by the same names.
        teacher: Gives the teacher's surprise at each trip, in nats, and the tokens it is over.

    Raises:
        DataError: a set or a split holds no trip of at least two roads.
    """
    listener = observer or Silent()
    how = Resampling(config.bootstrap, config.confidence, seed)
    train, trips = city.split("train"), city.split(od)
    other = city.split("test") if od == "train" else train
    for name, generated in runs.items():
        _check(name, generated, city)
    if not len(trips) or not len(other):
        empty = od if not len(trips) else ("test" if od == "train" else "train")
        raise DataError(f"{city.directory}: the {empty} split holds no trips",
                        hint="evaluation needs real trips in train and in test")
    real = real_side(city.network, trips, config)
    listener.notify(Progress("preparing the floor and the ceilings", 0, None, "trips"))
    sets, references = _with_references(runs, city, train, other, seed)
    listener.notify(Progress("rating trips", 0, sum(map(len, sets.values())), "trips"))
    ratings = rate(real, sets, config, how)
    surprised = _perplexities(real, ratings, teacher, config, how)
    places = learn_places(real.trips, train, city.network.centroid_lonlat, real.cell,
                          config.scenario)
    steps = _rules_of_next_road(city, train, trips, how)
    result = {}
    for name, generated in runs.items():
        listener.notify(Progress(f"judging {name}", 0, len(generated), "trips"))
        used = references[name]
        scenarios = _scenarios(real, places, sets, ratings, name, used[FLOOR], config, how)
        rows = {label: dict(ratings[key].figures) for label, key in used.items()}
        rows[FREQUENT].update(steps[FREQUENT])
        rows[STRAIGHTEST] = steps[STRAIGHTEST]
        judged = (models or {}).get(name)
        result[name] = Evaluation(
            name=name, od=od, city=_about(city), seed=seed, settings=config,
            counts=_counts(generated, ratings[name], real),
            reasons=_reasons(generated),
            figures={**ratings[name].figures, **(judged.figures if judged else {})},
            real={**_real_means(real, how), **surprised},
            references=rows,
            scenarios=scenarios,
            histograms=ratings[name].histograms,
            reliability=judged.reliability if judged else None,
            notes=_notes(generated, ratings[name], sets[used[FLOOR]], listener),
            generated=generated,
            rating=ratings[name],
            queries=query_values(real, generated, config.edr_epsilon_m,
                                 scenario_masks(_asked(generated), places, config.scenario)),
            truth=real,
        )
    return result


def compare_evaluations(a: Evaluation, b: Evaluation) -> Comparison:
    """Return the paired comparison of two evaluations of the same split, a minus b."""
    how = Resampling(a.settings.bootstrap, a.settings.confidence, a.seed)
    return compare(a.truth, a.settings.bins, (a.name, b.name), a.queries, b.queries, how)


def _check(name: str, generated: GeneratedTrips, city: City) -> None:
    if not len(answered(generated)):
        raise DataError(f"{name}: none of its {len(generated)} trips has two roads or more",
                        hint="look at the reasons in its file, or generate with a trained model")
    if generated.road.max(initial=0) >= city.network.roads:
        raise DataError(
            f"{name}: road {generated.road.max()} is not one of the {city.network.roads} roads "
            f"of {city.name}", hint="name the city that the trips were generated for: --city DIR")


def _with_references(
    runs: Mapping[str, GeneratedTrips], city: City, train: TrajectorySet, other: TrajectorySet,
    seed: int,
) -> tuple[dict[str, GeneratedTrips], dict[str, dict[str, str]]]:
    """Return all sets to rate, and for each run the names of its floor and ceilings."""
    sets: dict[str, GeneratedTrips] = dict(runs)
    references: dict[str, dict[str, str]] = {}
    done: list[str] = []
    for name, generated in runs.items():
        twin = next((x for x in done if same_queries(runs[x], generated)
                     and len(answered(runs[x])) == len(answered(generated))), None)
        if twin is not None:
            references[name] = references[twin]
            continue
        made = {
            FLOOR: real_sample(other, len(answered(generated)), seed),
            SHORTEST: shortest_paths(city.network, generated),
            FREQUENT: frequent_turns(city.network, generated, train),
        }
        references[name] = {label: f"{label} of {name}" for label in made}
        sets.update({references[name][label]: trips for label, trips in made.items()})
        done.append(name)
    return sets, references


def _perplexities(
    real: RealSide, ratings: Mapping[str, Rating], teacher: TripJudge | None,
    config: EvaluateConfig, how: Resampling,
) -> dict[str, Figure]:
    """Add the teacher's perplexity to each rating; return that of the real trips."""
    if teacher is None:
        return {}

    def figure(trips: TrajectorySet) -> Figure:
        most = max(config.model_trips, 1)
        if len(trips) > most:
            drawn = np.random.default_rng(how.seed).choice(len(trips), most, replace=False)
            trips = take_trips(trips, np.sort(drawn))
        return perplexity_figure(*teacher(trips), how)

    for rating in ratings.values():
        rating.figures["teacher_perplexity"] = figure(rating.trips)
    return {"teacher_perplexity": figure(real.trips)}


def _rules_of_next_road(
    city: City, train: TrajectorySet, trips: TrajectorySet, how: Resampling
) -> dict[str, dict[str, Figure]]:
    """Return the next-step accuracy of the two simplest rules on real trips."""
    if len(trips) > STEP_TRIPS:
        chosen = np.random.default_rng(how.seed).choice(len(trips), STEP_TRIPS, replace=False)
        trips = take_trips(trips, np.sort(chosen))
    right = {FREQUENT: most_frequent_next(city.network, train, trips),
             STRAIGHTEST: straightest_next(city.network, trips)}
    offset = trips.step_offset()
    return {name: {"next_step_accuracy": ratio_figure(
        values, np.ones(len(values)), offset, how, SHARE)} for name, values in right.items()}


def _about(city: City) -> dict[str, Any]:
    return {"name": city.name, "sha256": city.sha256, "roads": city.network.roads,
            "zones": city.network.zones}


def _asked(generated: GeneratedTrips) -> TripEnds:
    return TripEnds(np.maximum(generated.origin, 0), np.maximum(generated.destination, 0),
                    generated.departure_s)


def _counts(generated: GeneratedTrips, rating: Rating, real: RealSide) -> dict[str, int]:
    return {"queries": len(generated), "trips": len(rating.trips), "real": len(real.trips),
            "pairs": len(rating.pairs),
            "unknown_roads": int(((generated.origin < 0) | (generated.destination < 0)).sum())}


def _reasons(generated: GeneratedTrips) -> dict[str, int]:
    names, counts = np.unique(np.asarray(generated.reason, dtype=str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _real_means(real: RealSide, how: Resampling) -> dict[str, Figure]:
    means = Resampling(min(how.resamples, 200), how.confidence, how.seed)
    return mean_figures({f"mean_{attribute}": (getattr(real.features, attribute), (0.0, np.inf))
                         for attribute in PER_TRIP.values()}, means)


def _notes(
    generated: GeneratedTrips, rating: Rating, floor: GeneratedTrips, observer: Observer
) -> tuple[str, ...]:
    notes = []
    left = len(generated) - len(rating.trips)
    if left:
        notes.append(f"{left} of {len(generated)} queries were not answered by a path of two "
                     "roads or more; they count as not completed and enter no distribution")
    if not len(rating.pairs):
        notes.append("no generated trip starts and ends in the cells of a real one: the pair "
                     "metrics do not exist for this set")
    if len(floor) < len(rating.trips):
        notes.append(f"the floor has {len(floor)} trips, fewer than the {len(rating.trips)} "
                     "generated ones: its divergences are a little too large")
    for note in notes:
        observer.notify(Note(note, "warning"))
    return tuple(notes)


def _ends(trips: TrajectorySet) -> TripEnds:
    return TripEnds(origins(trips), destinations(trips), departures_s(trips))


def _scenarios(
    real: RealSide, places: Places, sets: Mapping[str, GeneratedTrips],
    ratings: Mapping[str, Rating], name: str, floor: str, config: EvaluateConfig, how: Resampling,
) -> dict[str, ScenarioResult]:
    """Return the figures of each kind of trips; kinds without generated trips are left out."""
    less = Resampling(min(how.resamples, 200), how.confidence, how.seed)
    generated, rating = sets[name], ratings[name]
    truth = scenario_masks(_ends(real.trips), places, config.scenario)
    asked = scenario_masks(_asked(generated), places, config.scenario)
    others = scenario_masks(_ends(ratings[floor].trips), places, config.scenario)
    completed = np.zeros(len(generated))
    ends = destinations(rating.trips)
    completed[rating.query] = ends == generated.destination[rating.query]
    result = {}
    for kind, mask in asked.items():
        inside = mask[rating.query]
        if not inside.any():
            continue
        figures = {"completion": mean_figure(completed[mask], less, SHARE)}
        figures.update(_divergences(real, rating, truth[kind], inside, config, less))
        paired = inside[rating.pairs[:, 0]]
        figures.update(mean_figures({
            metric: (getattr(rating.distances, metric)[paired], (0.0, np.inf))
            for metric in SCENARIO_PAIRS}, less))
        result[kind] = ScenarioResult(
            int(inside.sum()), int(truth[kind].sum()), int(paired.sum()), figures,
            _divergences(real, ratings[floor], truth[kind], others[kind], config, less))
    return result


def _divergences(
    real: RealSide, rating: Rating, truth: Bool[np.ndarray, " N"], inside: Bool[np.ndarray, " n"],
    config: EvaluateConfig, how: Resampling,
) -> dict[str, Figure]:
    figures = {}
    for stream, (name, attribute) in enumerate(PER_TRIP.items()):
        ours = getattr(real.features, attribute)[truth]
        theirs = getattr(rating.features, attribute)[inside]
        if not len(ours) or not len(theirs):
            figures[f"{name}_jsd"] = Figure(None, note="no trips of this kind")
            continue
        figures[f"{name}_jsd"] = histogram_divergence(
            histogram(ours, theirs, config.bins), how, 50 + stream)
    return figures
