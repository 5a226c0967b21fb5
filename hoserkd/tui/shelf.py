"""What the dashboard reads beside the runs themselves: evaluations, maps, the store's size.

All of it is cached by the files' times, so that looking again costs a few `stat` calls.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hoserkd.errors import HoserkdError
from hoserkd.store.database import DATABASE
from hoserkd.store.folders import scan_folders
from hoserkd.store.records import QuarantineRecord, RunRecord
from hoserkd.store.runs import RunStore
from hoserkd.tui.following import Following
from hoserkd.tui.judgements import FILE, Judgement, read_judgement
from hoserkd.tui.snapshot import RunRow, StoreHealth

if TYPE_CHECKING:
    from hoserkd.tui.mapping import CityMap, MapData
    from hoserkd.tui.studies import StudyRecord

MOST_JUDGEMENTS = 30
MOST_LARGEST = 5
SIZES_S = 30.0
"""Walking all files of a large store takes time; it is done so often at most."""


@dataclass(frozen=True, slots=True)
class _Sizes:
    read_at: float
    by_run: Mapping[str, int]
    leftovers: int
    schema_version: int | None
    quarantine: tuple[QuarantineRecord, ...]


class Shelf:
    """Reads and keeps evaluations, maps and sizes."""

    def __init__(self, store: RunStore, data_dir: Path) -> None:
        self._store = store
        self._data_dir = data_dir
        self._judged: dict[tuple[Path, int], Judgement | None] = {}
        self._studies: dict[tuple[Path, int], StudyRecord] = {}
        self._city: "tuple[object, CityMap] | None" = None
        self._map: "tuple[object, MapData] | None" = None
        self._sizes: _Sizes | None = None

    def judgements(self, records: Sequence[RunRecord]) -> tuple[Judgement, ...]:
        """Return the newest evaluations."""
        found = []
        for record in [record for record in records if record.kind == "evaluate"][:MOST_JUDGEMENTS]:
            path = self._judgement_file(record)
            if path is not None:
                judged = self._judgement(path, record)
                if judged is not None:
                    found.append(judged)
        return tuple(found)

    def studies(self, records: Sequence[RunRecord]) -> "dict[str, StudyRecord]":
        """Return what studies have written of themselves, by their names; the newest counts."""
        from hoserkd.tui.studies import DOCUMENTS, read_record

        found: dict[str, StudyRecord] = {}
        for record in records:
            if record.kind not in DOCUMENTS or record.study in found:
                continue
            path = Path(record.directory) / DOCUMENTS[record.kind]
            try:
                key = (path, path.stat().st_mtime_ns)
            except OSError:
                continue
            if key not in self._studies:
                self._studies[key] = read_record(path)
            found[record.study] = self._studies[key]
        return found

    def map(
        self, records: Mapping[str, RunRecord], run_id: str | None
    ) -> "tuple[MapData | None, str]":
        """Return the map of a run's city with its newest generated trips, or why there is none."""
        from hoserkd.tui.mapping import MapData, read_trips

        record = records.get(run_id or "")
        if record is None:
            return None, ""
        try:
            city = self._city_of(record)
            if city is None:
                return None, f"run {record.name} belongs to no city"
            trips = next((path for one in (record, *_parents(record, records))
                          for path in self._generated(one)), None)
            source = "" if trips is None else _source(trips)
            key = (id(city), trips, source, trips.stat().st_mtime_ns if trips else None)
            if self._map is None or self._map[0] != key:
                found = read_trips(trips, city) if trips else ()
                self._map = (key, MapData(city, source, found))
        except HoserkdError as error:
            return None, error.message
        except (OSError, ValueError, LookupError, TypeError):
            # Damaged, or being written: there is no map to show now.
            return None, f"the city of run {record.name} cannot be read just now"
        return self._map[1], ""

    def health(self, rows: Sequence[RunRow], now: float) -> StoreHealth:
        """Return the store's state."""
        if self._sizes is None or now - self._sizes.read_at > SIZES_S:
            self._sizes = self._measure(now)
        sizes, names = self._sizes, {row.run_id: row.name for row in rows}
        largest = sorted(sizes.by_run.items(), key=lambda item: -item[1])[:MOST_LARGEST]
        spools = scan_folders(self._store.runs_directory).values()
        states: dict[str, int] = {}
        for row in rows:
            states[row.status] = states.get(row.status, 0) + 1
        place = self._store.directory
        return StoreHealth(
            directory=str(place), database_bytes=_size(place / DATABASE),
            spool_bytes=sum(folder.size for folder in spools),
            files_bytes=sum(sizes.by_run.values()),
            free_bytes=shutil.disk_usage(place if place.exists() else Path.cwd()).free,
            schema_version=sizes.schema_version, runs_by_status=states,
            behind_s=float(round(self._store.lag_s())), leftovers_bytes=sizes.leftovers,
            largest=tuple((names.get(run_id, run_id), size) for run_id, size in largest),
            quarantine=sizes.quarantine)

    def _measure(self, now: float) -> "_Sizes":
        runs = self._store.runs_directory
        folders = [path for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
        by_run = {path.name: _folder_size(path) for path in folders}
        gone = sum(size for name, size in by_run.items() if name.startswith("."))
        old = sum(_size(path) for path in self._store.directory.glob("*.duckdb.old"))
        return _Sizes(now, {name: size for name, size in by_run.items()
                            if not name.startswith(".")}, gone + old, self._schema_version(),
                      self._quarantine())

    def _quarantine(self) -> tuple[QuarantineRecord, ...]:
        try:
            return self._store.quarantine()
        except HoserkdError:
            return ()

    def _schema_version(self) -> int | None:
        try:
            found = self._store.query("SELECT max(version) FROM schema_migrations")
        except HoserkdError:
            return None
        return int(found.rows[0][0])

    def _judgement_file(self, record: RunRecord) -> Path | None:
        inside = Path(record.directory) / "evaluation" / FILE
        if inside.is_file():
            return inside
        return next((path for path in _artifacts(record, "evaluation") if path.is_file()), None)

    def _judgement(self, path: Path, record: RunRecord) -> Judgement | None:
        key = (path, path.stat().st_mtime_ns)
        if key not in self._judged:
            self._judged[key] = read_judgement(path, record.run_id, record.name)
        return self._judged[key]

    def _city_of(self, record: RunRecord) -> "CityMap | None":
        """Return the roads of the city that a run was made on; None: its record names none."""
        from hoserkd.store.artefacts import find_city
        from hoserkd.tui.mapping import read_city_map

        directory = find_city(record, self._data_dir)
        if directory is None:
            return None
        stamp = (directory, (directory / "manifest.json").stat().st_mtime_ns)
        if self._city is None or self._city[0] != stamp:
            self._city = (stamp, read_city_map(directory))
        return self._city[1]

    def _generated(self, record: RunRecord) -> list[Path]:
        inside = sorted((Path(record.directory) / "generated").glob("*.csv"), key=_time)
        return inside[::-1] or [path for path in _artifacts(record, "generated")
                                if path.suffix == ".csv" and path.is_file()]


def _source(trips: Path) -> str:
    """Return the name of a run's file of trips, and whether its weights have changed since."""
    model = trips.parent.parent / "best.safetensors"
    older = model.is_file() and _time(trips) < _time(model)
    return f"{trips.name}, older than the run's weights" if older else trips.name


def _artifacts(record: RunRecord, kind: str) -> list[Path]:
    follows = Following(Path(record.directory), whole=False)
    follows.advance()
    return [Path(record.directory) / path for found, path in follows.artifacts if found == kind]


def _parents(record: RunRecord, records: Mapping[str, RunRecord]) -> list[RunRecord]:
    """Return the runs whose trips a run judged or made; those that only taught it have others."""
    if record.kind not in ("evaluate", "generate"):
        return []
    return [records[parent] for parent in record.parents if parent in records]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _folder_size(folder: Path) -> int:
    return sum(_size(path) for path in folder.rglob("*") if path.is_file())


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns
