"""Judging generated trips against the real ones of a city."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import EvaluateConfig
from hoserkd.engine.events import Note, Observer, Progress, Silent
from hoserkd.engine.metrics.baselines import (
    FLOOR,
    FREQUENT,
    NO_LOOPS,
    SHORTEST,
    STRAIGHTEST,
    by_construction,
    frequent_turns,
    real_sample,
    rules_of_next_road,
    same_queries,
    shortest_paths,
)
from hoserkd.engine.metrics.breakdown import asked_ends, scenario_results
from hoserkd.engine.metrics.comparison import Comparison, compare, corrected, request_values
from hoserkd.engine.metrics.evaluation import Evaluation as Evaluation
from hoserkd.engine.metrics.evaluation import Split
from hoserkd.engine.metrics.model import ModelJudgement as ModelJudgement
from hoserkd.engine.metrics.model import perplexity_figure
from hoserkd.engine.metrics.packed import answered, as_trajectories, take_trips
from hoserkd.engine.metrics.rating import (
    NOT_STATED,
    Rating,
    RealSide,
    rate,
    real_side,
    trip_means,
)
from hoserkd.engine.metrics.scenarios import Places, learn_places, scenario_masks
from hoserkd.engine.metrics.soundness import fault_counts, fault_notes, find_faults
from hoserkd.engine.metrics.statistics import Figure, Resampling
from hoserkd.engine.metrics.task import copied_trips, same_road
from hoserkd.engine.metrics.units import Units, apart, request_units
from hoserkd.engine.types import GeneratedTrips, TrajectorySet
from hoserkd.errors import DataError

TripJudge = Callable[[TrajectorySet], tuple[np.ndarray, np.ndarray]]
"""Of each trip: the sum of a teacher's surprises in nats, and over how many tokens."""
MEAN_RESAMPLES = 200
"""Resamples behind the real trips' means."""


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
    loopless: Collection[str] = (),
    observer: Observer | None = None,
) -> dict[str, Evaluation]:
    """Return the judgement of several sets of trips against the real trips of one split.

    Args:
        runs: The sets by name. Equal queries make their floor and ceilings common.
        od: The split that the queries were drawn from; its trips are the real side, and the
            other split's are the floor.
        models: What the models behind the sets say step by step, by the same names.
        teacher: Gives the teacher's surprise at each trip, in nats, and the tokens it is over.
        loopless: Names of the sets whose search cannot enter a road twice, so that their share of
            revisits is 0 by construction.

    Raises:
        DataError: a set or a split holds no trip of at least two roads.
    """
    listener = observer or Silent()
    for name, generated in runs.items():
        _check(name, generated, city)
    bench = _bench(runs, city, config, od, seed, teacher, listener)
    result = {}
    for name, generated in runs.items():
        listener.notify(Progress(f"judging {name}", 0, len(generated), "trips"))
        result[name] = _evaluation(bench, name, generated, (models or {}).get(name),
                                   loopless=name in loopless)
        for note in result[name].notes:
            listener.notify(Note(note, "warning"))
    return result


def compare_evaluations(a: Evaluation, b: Evaluation) -> Comparison:
    """Return the paired comparison of two evaluations of the same split, a minus b."""
    return compare_pairs([(a, b)])[0]


def compare_pairs(pairs: Sequence[tuple[Evaluation, Evaluation]]) -> tuple[Comparison, ...]:
    """Return paired comparisons of evaluations of one split, corrected for all of them together."""
    return corrected([
        compare(a.truth, a.settings.bins, (a.name, b.name), a.requests, b.requests,
                Resampling(a.settings.bootstrap, a.settings.confidence, a.seed))
        for a, b in pairs])


@dataclass(frozen=True, slots=True)
class _Bench:
    """What all runs are held against, worked out once."""

    city: City
    od: Split
    config: EvaluateConfig
    how: Resampling
    real: RealSide
    means: dict[str, Figure]
    """Of the real trips."""
    places: Places
    sets: dict[str, GeneratedTrips]
    """The runs, and their floors and ceilings."""
    ratings: dict[str, Rating]
    references: dict[str, dict[str, str]]
    """By run: the names of its floor and ceilings among the sets."""
    rules: dict[str, dict[str, Figure]]


def _bench(
    runs: Mapping[str, GeneratedTrips], city: City, config: EvaluateConfig, od: Split, seed: int,
    teacher: TripJudge | None, listener: Observer,
) -> _Bench:
    how = Resampling(config.bootstrap, config.confidence, seed)
    if od == "train":
        config = _without_novelty(config)
    train, trips, other = _splits(city, od)
    real = real_side(city.network, trips, config)
    listener.notify(Progress("preparing the floor and the ceilings", 0, None, "trips"))
    sets, references = _with_references(runs, city, train, other, seed)
    listener.notify(Progress("rating trips", 0, sum(map(len, sets.values())), "trips"))
    ratings = rate(real, sets, config, how)
    surprised = _perplexities(real, ratings, teacher, config, how)
    places = learn_places(real.trips, train, city.network.centroid_lonlat, real.cell,
                          config.scenario)
    return _Bench(city, od, config, how, real, {**_real_means(real, how), **surprised}, places,
                  sets, ratings, references, rules_of_next_road(city.network, train, trips, how))


def _without_novelty(config: EvaluateConfig) -> EvaluateConfig:
    """Return the settings without the breakdown that training trips hold by construction.

    Each of them joins two places that a training trip joins: itself.
    """
    scenario = config.scenario
    kinds = tuple(kind for kind in scenario.by if kind != "novelty")
    return config.model_copy(update={"scenario": scenario.model_copy(update={"by": kinds})})


def _splits(city: City, od: Split) -> tuple[TrajectorySet, TrajectorySet, TrajectorySet]:
    """Return the training trips, those of the split, and those of the other one."""
    train, trips = city.split("train"), city.split(od)
    other = city.split("test") if od == "train" else train
    if not len(trips) or not len(other):
        empty = od if not len(trips) else ("test" if od == "train" else "train")
        raise DataError(f"{city.directory}: the {empty} split holds no trips",
                        hint="evaluation needs real trips in train and in test")
    return train, trips, other


def _evaluation(
    bench: _Bench, name: str, generated: GeneratedTrips, model: ModelJudgement | None,
    *, loopless: bool,
) -> Evaluation:
    """Return the judgement of one run."""
    real, config, rating = bench.real, bench.config, bench.ratings[name]
    used, faults = bench.references[name], find_faults(real.network, generated)
    rows = {label: {**bench.ratings[key].figures, **by_construction(label)}
            for label, key in used.items()}
    rows[FREQUENT].update(bench.rules[FREQUENT])
    rows[STRAIGHTEST] = bench.rules[STRAIGHTEST]
    return Evaluation(
        name=name, od=bench.od, city=_about(bench.city), seed=bench.how.seed, settings=config,
        counts=_counts(generated, rating, real) | fault_counts(faults),
        reasons=_reasons(generated),
        figures={**rating.figures, **(model.figures if model else {}),
                 **({"revisit_share": NO_LOOPS} if loopless else {})},
        real=bench.means,
        references=rows,
        scenarios=scenario_results(real, bench.places, bench.sets, bench.ratings, name,
                                   used[FLOOR], config, bench.how),
        histograms=rating.histograms,
        reliability=model.reliability if model else None,
        notes=(*_notes(generated, rating, bench.sets[used[FLOOR]]),
               *fault_notes(real.network, generated, faults),
               *_made_notes(generated, real, bench.od)),
        generated=generated,
        rating=rating,
        requests=request_values(real, generated, config.edr_epsilon_m, scenario_masks(
            asked_ends(generated), bench.places, config.scenario)),
        truth=real,
    )


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
            FLOOR: real_sample(other, request_units(generated).take(answered(generated)).count,
                               seed),
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

    def figure(trips: TrajectorySet, units: Units) -> Figure:
        most = max(config.model_trips, 1)
        if len(trips) > most:
            drawn = np.random.default_rng(how.seed).choice(len(trips), most, replace=False)
            trips, units = take_trips(trips, np.sort(drawn)), units.take(np.sort(drawn))
        return perplexity_figure(*teacher(trips), how, units)

    for rating in ratings.values():
        rating.figures["teacher_perplexity"] = figure(rating.trips, rating.units)
    return {"teacher_perplexity": figure(real.trips, apart(len(real.trips)))}


def _about(city: City) -> dict[str, Any]:
    return {"name": city.name, "sha256": city.sha256, "roads": city.network.roads,
            "zones": city.network.zones}


def _counts(generated: GeneratedTrips, rating: Rating, real: RealSide) -> dict[str, int]:
    return {"queries": len(generated), "requests": rating.requests.count,
            "trips": len(rating.trips), "real": len(real.trips), "pairs": len(rating.pairs),
            "unknown_roads": int(((generated.origin < 0) | (generated.destination < 0)).sum()),
            "same_road": int(same_road(generated).sum())}


def _reasons(generated: GeneratedTrips) -> dict[str, int]:
    if not generated.stated:
        # Every trip ends where it ends: that it arrived would hold by construction.
        return {}
    names, counts = np.unique(np.asarray(generated.reason, dtype=str), return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _real_means(real: RealSide, how: Resampling) -> dict[str, Figure]:
    less = Resampling(min(how.resamples, MEAN_RESAMPLES), how.confidence, how.seed)
    return trip_means(real.features, apart(len(real.trips)), less)


def _made_notes(generated: GeneratedTrips, real: RealSide, od: Split) -> Iterator[str]:
    """Yield what to know about figures that hold by the making of trips, requests or rules."""
    if not generated.stated:
        yield (f"{NOT_STATED}: whether trips end where they should is not known, and the simple "
               "rules answer the trips' own ends")
    elif same := int(same_road(generated).sum()):
        yield (f"{same} queries start on the road where they end: there is nothing to be done, "
               "and they count neither as completed nor as not")
    if copies := copied_trips(as_trajectories(generated), real.trips):
        yield (f"{copies} trips are real trips of the split, road by road and second by second: "
               "what holds them against real trips holds by construction")
    if od == "train":
        yield ("the turns of `most frequent turns` were counted on the very trips that it is "
               "held against")


def _notes(
    generated: GeneratedTrips, rating: Rating, floor: GeneratedTrips
) -> tuple[str, ...]:
    notes = []
    nowhere = (generated.origin < 0) | (generated.destination < 0)
    if nowhere.any():
        notes.append(f"{nowhere.sum()} of {len(generated)} queries ask for a road that the city "
                     "lacks or a point too far from any road: they count neither as completed nor "
                     "as not, and enter no distribution")
    searched = ~nowhere & (generated.origin != generated.destination)
    left = int((searched & (np.diff(generated.offset) < 2)).sum())
    if left:
        notes.append(f"{left} of {len(generated)} queries were not answered by a path of two "
                     "roads or more; they count as not completed and enter no distribution")
    if not len(rating.pairs):
        notes.append("no generated trip starts and ends in the cells of a real one: the pair "
                     "metrics do not exist for this set")
    if len(generated) > rating.requests.count:
        notes.append(f"{len(generated)} trips answer {rating.requests.count} requests: intervals "
                     "and tests count requests")
    if len(floor) < rating.units.count:
        notes.append(f"the floor has {len(floor)} trips, fewer than the {rating.units.count} "
                     "answered requests: its divergences are a little too large")
    return tuple(notes)
