"""From a source folder to a prepared city."""

import fcntl
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hoserkd.engine.city.inputs import PARTITION, TRANSITIONS, find_inputs
from hoserkd.engine.city.network import build_network
from hoserkd.engine.city.road_warnings import matrix_warnings, road_warnings, zone_warnings
from hoserkd.engine.city.roadmap import Roadmap, read_roadmap
from hoserkd.engine.city.statistics import city_statistics, time_statistics
from hoserkd.engine.city.storage import (
    CONTENT,
    SPLITS,
    TRIP_ARRAYS,
    CityWriter,
    load_city,
    read_manifest,
    write_city,
)
from hoserkd.engine.city.warnings import ColumnWarning, refuse_if_any
from hoserkd.engine.city.zones import (
    count_trip_transitions,
    partition_roads,
    read_partition,
    read_zone_transitions,
)
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Note, Observer, Progress, StopRequested
from hoserkd.engine.files import file_sha256, write_json
from hoserkd.engine.npy import ArrayWriter
from hoserkd.engine.outputs import check_outputs
from hoserkd.engine.trips.reading import read_trips
from hoserkd.engine.trips.trip_warnings import TripWatch
from hoserkd.engine.trips.validation import Rejections, RoadJudge, kept_trips
from hoserkd.engine.types import RoadNetwork, TrajectorySet
from hoserkd.errors import DataError, InterruptedRunError, UsageError

SETTINGS = ("name", "zones", "partitioner", "max_rejected_share", "seed")
"""The settings on which a prepared city depends."""
LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """What `prepare_city` has found and done."""

    directory: Path
    name: str
    sha256: str
    changed: bool
    """False: inputs and settings were those of the city that is there, so nothing was done."""
    statistics: dict[str, Any]
    rejected: dict[str, dict[str, int]]
    """Rejected trips by split and cause."""
    warnings: tuple[dict[str, Any], ...]
    """Columns that contradict each other: see `city.warnings.ColumnWarning`."""
    rejected_path: Path | None
    """The file that names every rejected trip; None: there are none."""
    seconds: float


def prepare_city(
    config: CityConfig,
    source: Path,
    directory: Path,
    *,
    force: bool,
    observer: Observer,
    stop: StopRequested,
    strict: bool = False,
) -> PrepareReport:
    """Read, check and write a city; do nothing where it is there already.

    Args:
        config: zones, limits and seed.
        source: folder in the HOSER format (ENGINE.md section 1).
        directory: where the prepared city goes; an older one there is replaced at the end.
        force: write it even if inputs and settings are unchanged.
        observer: hears progress and notes.
        stop: asked between pieces of a few thousand trips.
        strict: refuse a source whose columns contradict each other, instead of a warning.

    Raises:
        UsageError: `directory` is the source, or holds files of those names that are no city's.
        DataError: a file is missing or wrong, too many trips are bad, or the disk is full.
        InterruptedRunError: `stop` said so; the old city, if any, is still there.
    """
    began = time.perf_counter()
    inputs = find_inputs(source)
    if directory.exists() and directory.samefile(source):
        raise UsageError(f"{directory}: is the source, which must stay as it is",
                         hint="name another folder with --city")
    # A damaged manifest no longer tells that it is a city's; the folders beside it do.
    ours = any(directory.glob(f"{CONTENT}*"))
    check_outputs([directory / "manifest.json", directory / "rejected.csv"],
                  inputs=inputs.values(), force=force or ours)
    with _lock(directory, observer, stop):
        settings = {name: getattr(config, name) for name in SETTINGS}
        digests = _digests(inputs, observer, stop)
        if not force and _is_current(directory, settings, digests):
            manifest = _with_timezone(directory, config.timezone)
            _tell_again(manifest, observer, strict)
            return _report(directory, manifest, began, changed=False)
        preparation = _Preparation(config, inputs, directory, observer, stop, strict)
        try:
            manifest = preparation.run(settings, digests)
        except OSError as error:
            # Reading turns its own errors into DataError, so this one is about writing.
            raise DataError(
                f"{directory}: cannot be written: {error.strerror or error}",
                hint="what was there before is unchanged; make room, or name another folder"
                " with --city",
            ) from error
        return _report(directory, manifest, began, changed=True)


def _digests(
    inputs: dict[str, Path], observer: Observer, stop: StopRequested
) -> dict[str, dict[str, Any]]:
    digests = {}
    for done, (name, path) in enumerate(inputs.items()):
        _stop_if_asked(stop)
        observer.notify(Progress("checking the source", done, len(inputs), "files"))
        try:
            digests[name] = {"file": path.name, "sha256": file_sha256(path)}
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    observer.notify(Progress("checking the source", len(inputs), len(inputs), "files"))
    return digests


def _is_current(directory: Path, settings: dict[str, Any], digests: dict[str, Any]) -> bool:
    try:
        city = load_city(directory)
        for split in SPLITS:
            city.split(split)
    except DataError:
        # Missing or damaged: made anew.
        return False
    return bool(
        city.manifest.get("settings") == settings and city.manifest.get("inputs") == digests
        # Versions that did not look for them left none.
        and "warnings" in city.manifest
    )


def _with_timezone(directory: Path, timezone: str | None) -> dict[str, Any]:
    """Return the manifest of a current city, with the zone of its clocks if one is given now.

    The zone changes nothing that was computed, so the city need not be prepared anew.
    """
    manifest = read_manifest(directory)
    if timezone is not None and manifest.get("timezone") != timezone:
        manifest["timezone"] = timezone
        write_json(directory / "manifest.json", manifest)
    return manifest


def _tell_again(manifest: dict[str, Any], observer: Observer, strict: bool) -> None:
    """Tell, or refuse, what was found when the city was prepared."""
    messages = [str(warning["message"]) for warning in manifest["warnings"]]
    if strict:
        refuse_if_any(messages)
    for message in messages:
        observer.notify(Note(message, "warning"))


def _report(
    directory: Path, manifest: dict[str, Any], began: float, *, changed: bool
) -> PrepareReport:
    rejected = {split: dict(causes) for split, causes in manifest["rejected"].items()}
    path = directory / "rejected.csv"
    return PrepareReport(
        directory=directory,
        name=manifest["name"],
        sha256=manifest["sha256"],
        changed=changed,
        statistics=manifest["statistics"],
        rejected=rejected,
        warnings=tuple(manifest["warnings"]),
        rejected_path=path if any(rejected.values()) else None,
        seconds=time.perf_counter() - began,
    )


def _stop_if_asked(stop: StopRequested) -> None:
    if stop():
        raise InterruptedRunError(
            "stopped; nothing was changed", hint="run the same command again to prepare the city"
        )


@contextmanager
def _lock(directory: Path, observer: Observer, stop: StopRequested) -> Iterator[None]:
    """Hold the city's lock, which goes with the process that holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"{directory}: cannot be written: {error.strerror}",
            hint="name another folder with --city or --data-dir",
        ) from error
    with file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    observer.notify(Note(f"waiting for another prepare of {directory}"))
                waiting = True
                _stop_if_asked(stop)
                time.sleep(LOCK_POLL_S)
        yield


class _Preparation:
    """One run of the preparation, step by step."""

    def __init__(
        self,
        config: CityConfig,
        inputs: dict[str, Path],
        directory: Path,
        observer: Observer,
        stop: StopRequested,
        strict: bool,
    ) -> None:
        self._config = config
        self._inputs = inputs
        self._directory = directory
        self._observer = observer
        self._stop = stop
        self._strict = strict
        self._warnings: list[ColumnWarning] = []

    def run(self, settings: dict[str, Any], digests: dict[str, Any]) -> dict[str, Any]:
        """Write the city and return its manifest."""
        with self._phase("reading the roads"):
            roadmap = read_roadmap(self._inputs["roadmap.geo"], self._inputs["roadmap.rel"])
        self._warn(road_warnings(roadmap))
        with self._phase("cutting zones"):
            network = build_network(roadmap, *self._zones(roadmap))
        rejections = Rejections()
        with write_city(self._directory) as writer:
            judge = RoadJudge(network.road_id, network.candidates)
            watch = TripWatch(network.length_m)
            for split in SPLITS:
                self._write_split(split, judge, writer, rejections, watch)
            self._check_rejections(rejections, writer)
            self._warn(watch.warnings())
            with self._phase("writing the city"):
                return self._write_rest(writer, network, settings, digests, rejections)

    def _write_rest(
        self,
        writer: CityWriter,
        network: RoadNetwork,
        settings: dict[str, Any],
        digests: dict[str, Any],
        rejections: Rejections,
    ) -> dict[str, Any]:
        """Write what depends on the trips, and make it the city."""
        train = writer.read_split("train")
        self._count_transitions(network, train)
        if self._strict:
            refuse_if_any([warning.message for warning in self._warnings])
        writer.save_network(network)
        times = time_statistics(train)
        splits = {split: writer.read_split(split) for split in SPLITS}
        return writer.commit({
            "name": self._config.name,
            "timezone": self._config.timezone,
            "highway_names": list(network.highway_names),
            "times": {"log1p_mean": times.log1p_mean, "log1p_std": times.log1p_std},
            "settings": settings,
            "inputs": digests,
            "statistics": city_statistics(network, splits),
            "rejected": rejections.by_split(),
            "warnings": [warning.to_json() for warning in self._warnings],
        })

    @contextmanager
    def _phase(self, job: str) -> Iterator[None]:
        _stop_if_asked(self._stop)
        self._observer.notify(Progress(job, 0, 1, "parts"))
        yield
        self._observer.notify(Progress(job, 1, 1, "parts"))

    def _zones(self, roadmap: Roadmap) -> tuple[Any, Any]:
        """Return each road's zone and the given transitions, or zeros to be counted later."""
        if PARTITION in self._inputs:
            zone = read_partition(self._inputs[PARTITION], roadmap.roads)
            zones = int(zone.max()) + 1
            self._warn(zone_warnings(zone, roadmap.origin, roadmap.destination))
            if TRANSITIONS in self._inputs:
                return zone, read_zone_transitions(self._inputs[TRANSITIONS], zones)
            return zone, np.zeros((zones, zones), np.int64)
        if TRANSITIONS in self._inputs:
            self._warn([ColumnWarning(
                "matrix-without-zones", 1, 1, "files of transitions is ignored, for it belongs to "
                f"other zones where there is no {PARTITION}", TRANSITIONS)])
        zone = partition_roads(
            roadmap.roads, roadmap.origin, roadmap.destination,
            zones=self._config.zones, method=self._config.partitioner, seed=self._config.seed,
        )
        zones = int(zone.max()) + 1
        return zone, np.zeros((zones, zones), np.int64)

    def _write_split(
        self, split: str, judge: RoadJudge, writer: CityWriter, rejections: Rejections,
        watch: TripWatch,
    ) -> None:
        path = self._inputs[f"{split}.csv"]
        size = max(path.stat().st_size >> 10, 1)
        end = 0
        with ExitStack() as stack:
            offset, road, entered = (
                stack.enter_context(ArrayWriter(writer.path(f"trips/{split}/{name}"), dtype))
                for name, dtype in zip(TRIP_ARRAYS, ("<i8", "<i4", "<i8"), strict=True)
            )
            offset.append(np.zeros(1, np.int64))
            for trips, position in read_trips(path):
                _stop_if_asked(self._stop)
                judge.judge(trips)
                rejections.add(split, trips)
                watch.add(split, path.name, trips)
                points, kept_road, kept_time = kept_trips(trips)
                ends = end + np.cumsum(points)
                end = int(ends[-1]) if len(ends) else end
                offset.append(ends)
                road.append(kept_road)
                entered.append(kept_time)
                self._tell_reading(path, min(position >> 10, size - 1), size, offset.length - 1)
            kept = offset.length - 1
        self._tell_reading(path, size, size, kept)
        if kept == 0 and rejections.total.get(split, 0) == 0:
            raise DataError(
                f"{path}: holds no trips",
                hint="every split needs trips; cut some from another split by time",
            )

    def _tell_reading(self, path: Path, done: int, total: int, trips: int) -> None:
        self._observer.notify(
            Progress(f"reading {path.name}", done, total, "kB", {"trips": float(trips)})
        )

    def _check_rejections(self, rejections: Rejections, writer: CityWriter) -> None:
        path = self._directory / "rejected.csv"
        if not rejections.rejected:
            path.unlink(missing_ok=True)
            return
        rejections.save(path)
        allowed = self._config.max_rejected_share
        if rejections.share > allowed:
            raise DataError(
                f"{rejections.rejected} of {sum(rejections.total.values())} trips"
                f" ({rejections.share:.1%}) are bad, more than city.max_rejected_share allows"
                f" ({allowed:.1%}): {rejections.summary()}",
                hint=f"{path} names each with its row; mend the files, or if the rest is enough"
                " raise the limit with --set city.max_rejected_share=...",
            )
        for split in SPLITS:
            if len(writer.read_split(split)) == 0:
                raise DataError(
                    f"{self._inputs[f'{split}.csv']}: every trip is bad:"
                    f" {rejections.summary(split)}",
                    hint=f"{path} names each with its row",
                )
        self._observer.notify(Note(
            f"{rejections.rejected} bad trips were left out: {rejections.summary()};"
            f" see {path}", "warning",
        ))

    def _count_transitions(self, network: RoadNetwork, train: TrajectorySet) -> None:
        """Count zone changes into the network's matrix, or hold a given one against them."""
        given = network.zone_transitions
        counted = count_trip_transitions(network.zone, network.zones, train)
        if TRANSITIONS in self._inputs and PARTITION in self._inputs:
            self._warn(matrix_warnings(given, counted, network.zone))
        else:
            given += counted

    def _warn(self, warnings: Iterable[ColumnWarning]) -> None:
        """Keep warnings for the manifest, and tell them."""
        for warning in warnings:
            self._warnings.append(warning)
            self._observer.notify(Note(warning.message, "warning"))
