"""Who made a file of generated trips: all that decides what is in it.

Parquet files carry it in their metadata, other files in a JSON file beside them. Whoever reuses
generated trips compares this, never a name or a time: weights are trained on, cities are prepared
anew, and settings and seeds change.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from hoserkd import __version__
from hoserkd.engine.city.storage import City
from hoserkd.engine.config import GenerateConfig
from hoserkd.engine.files import file_sha256, parse_json, write_json
from hoserkd.engine.identity import Identity, Kind, city_identity
from hoserkd.engine.search.od import ZONES
from hoserkd.engine.search.queries import Queries
from hoserkd.engine.types import GeneratedTrips

SEARCH_VERSION = 1
"""Raised whenever a search answers the same inputs otherwise than before."""
SOURCES = ("train", "test", "test-trips")
METADATA_KEY = "hoserkd"
"""Key of the note in a Parquet file's metadata."""
MOST_BYTES = 1 << 20
"""A note is smaller than this; whatever is larger was not written here."""
MOST_LETTERS = 1000
DIGITS = 8
"""Digits of the hash in file names."""
LIMITS = ("max_steps", "time_limit_s", "search_time_limit_s")
READ_BY = {
    "astar": (*LIMITS, "guide", "guide_weight"),
    "beam": (*LIMITS, "beam_width", "length_normalised"),
    "greedy": LIMITS,
    "sample": (*LIMITS, "attempts", "temperature", "top_p", "forbid_loops"),
}
"""The settings of `generate` that each search reads."""


@dataclass(frozen=True, slots=True)
class RequestSet:
    """Which trips were asked for, in which order."""

    source: str = field(compare=False)
    """Where the requests came from: `train`, `test`, `test-trips`, `zones:...` or a file name."""
    count: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.count:,} requests of {self.source}"


@dataclass(frozen=True, slots=True)
class TripsMaker:
    """Equal makers give equal trips."""

    student: Identity
    city: Identity
    requests: RequestSet
    search: str
    settings: Mapping[str, Any]
    """The settings that the search reads, by name."""
    seed: int
    version: int = SEARCH_VERSION

    @property
    def sha256(self) -> str:
        """Hash of all that decides the trips; names and places do not count."""
        decisive = {**self.to_json(), "student": self.student.sha256, "city": self.city.sha256,
                    "requests": self.requests.sha256}
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the maker as files and reports show it; it names no place of this machine."""
        requests = self.requests
        return {
            "student": self.student.to_json(), "city": self.city.to_json(),
            "requests": {"source": requests.source, "count": requests.count,
                         "sha256": requests.sha256},
            "search": self.search, "settings": dict(self.settings), "seed": self.seed,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Return what `to_json` wrote, or None where `value` is no such thing."""
        try:
            asked = value["requests"]
            requests = RequestSet(_word(asked["source"]), _whole(asked["count"]),
                                  _word(asked["sha256"]))
            settings = {_word(name): _plain(each) for name, each in value["settings"].items()}
            return cls(_artefact("student", value["student"]), _artefact("city", value["city"]),
                       requests, _word(value["search"]), settings, _whole(value["seed"]),
                       _whole(value["version"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def differences(self, other: "TripsMaker") -> dict[str, str]:
        """Return what differs, by its kind, as `mine and other`; empty where all is equal."""
        pairs: dict[str, tuple[object, object]] = {
            "weights": (self.student, other.student), "city": (self.city, other.city),
            "requests": (self.requests, other.requests), "search": (self.search, other.search),
            "seed": (self.seed, other.seed), "version": (self.version, other.version),
        }
        if self.search == other.search:
            names = dict.fromkeys([*self.settings, *other.settings])
            pairs |= {f"generate.{name}": (self.settings.get(name), other.settings.get(name))
                      for name in names}
        return {name: f"{mine} and {theirs}" for name, (mine, theirs) in pairs.items()
                if mine != theirs}


def _artefact(kind: Kind, value: Any) -> Identity:
    return Identity(kind, _word(value["name"]), _word(value["sha256"]))


def _word(value: Any) -> str:
    """Return a text of a file's, which may be shown to people; a long one was not written here."""
    if not isinstance(value, str) or len(value) > MOST_LETTERS:
        raise ValueError("no name")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 1 << 64:
        raise ValueError("no whole number")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return _word(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("no number")
        return value
    return value if value is None or isinstance(value, bool) else _whole(value)


def trips_maker(
    student: Identity, city: City, queries: Queries, source: str, config: GenerateConfig, seed: int
) -> TripsMaker:
    """Return who makes the answers to `queries`.

    Args:
        student: See `student_identity`.
        source: The word or file that the queries come from; of a file its name alone is kept.
    """
    word = source in SOURCES or source.startswith(ZONES)
    asked = RequestSet(source if word else Path(source).name, len(queries),
                       requests_sha256(queries))
    read = config.model_dump(mode="json", include=set(READ_BY[config.search]))
    if not read.get("guide", True):
        del read["guide_weight"]
    return TripsMaker(student, city_identity(city), asked, config.search, read, seed)


def requests_sha256(queries: Queries) -> str:
    """Return the hash of all that an answer depends on of its queries, order included."""
    digest = hashlib.sha256()
    for values in (queries.origin, queries.destination, queries.departure_s, queries.numbers):
        digest.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
    unknown = (queries.origin < 0) | (queries.destination < 0)
    if queries.requested is not None:
        # The ids of unknown roads are repeated in the answers; those of known ones are implied.
        digest.update(np.ascontiguousarray(queries.requested[unknown], np.int64).tobytes())
    return digest.hexdigest()


class TripsDigest:
    """The hash of trips that come in chunks, however they are cut into chunks."""

    def __init__(self) -> None:
        self._digests = [hashlib.sha256() for _ in range(6)]
        self.trips = 0

    def add(self, trips: GeneratedTrips) -> None:
        """Count a chunk in. The log-probability is left out: CSV rounds it."""
        values = (trips.origin, trips.destination, trips.departure_s, np.diff(trips.offset),
                  trips.road, trips.entered_at_s)
        for digest, part in zip(self._digests, values, strict=True):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        self.trips += len(trips)

    def through(self, chunks: Iterable[GeneratedTrips]) -> Iterator[GeneratedTrips]:
        """Yield the chunks, and count each in."""
        for trips in chunks:
            self.add(trips)
            yield trips

    def sha256(self) -> str:
        """Return the hash of all chunks so far."""
        return hashlib.sha256(b"".join(d.digest() for d in self._digests)).hexdigest()

    def note(self, maker: TripsMaker | None) -> "TripsNote | None":
        """Return the note of a file of these trips; None if nobody is known to have made them."""
        return None if maker is None else TripsNote(maker, self.trips, self.sha256())


@dataclass(frozen=True, slots=True)
class TripsNote:
    """What a file of generated trips says of itself."""

    maker: TripsMaker
    trips: int
    trips_sha256: str
    """See `TripsDigest`: a file that was changed since does not have it."""
    file_sha256: str | None = None
    """Hash of the file's bytes, where the note lies beside it; None: the note is in the file."""

    def is_beside(self, path: Path) -> bool:
        """Return whether the file has not changed since the note was written.

        Programs that write a Parquet file anew drop its metadata, and the note with it.
        """
        return self.file_sha256 in (None, file_sha256(path))

    def is_of(self, trips: GeneratedTrips) -> bool:
        """Return whether these are the trips that the note was written for."""
        digest = TripsDigest()
        digest.add(trips)
        return digest.sha256() == self.trips_sha256

    def to_json(self) -> dict[str, Any]:
        """Return the note as files hold it."""
        return {"schema_version": 1, "kind": "generated trips", "hoserkd": __version__,
                "trips": self.trips, "trips_sha256": self.trips_sha256,
                "made_by": self.maker.to_json()}


def note_text(note: TripsNote) -> str:
    """Return the note as a Parquet file holds it."""
    return json.dumps(note.to_json())


def note_path(path: Path) -> Path | None:
    """Return the file beside `path` that says who made it; None: Parquet says so itself."""
    return None if path.suffix == ".parquet" else path.with_name(path.name + ".json")


def write_note(path: Path, note: TripsNote | None) -> None:
    """Write the note of the file `path` beside it; with None remove one of an earlier file."""
    beside = note_path(path)
    if beside is None:
        return
    if note is not None:
        write_json(beside, {**note.to_json(), "file_sha256": file_sha256(path)})
    elif read_note(path) is not None:
        beside.unlink()


def read_note(path: Path) -> TripsNote | None:
    """Return who made the file `path`; None where it does not say, or not in a readable way."""
    try:
        beside = note_path(path)
        text = _parquet_note(path) if beside is None else _note_beside(beside)
        value = parse_json(text or "null")
        maker = TripsMaker.from_json(value["made_by"])
        if maker is None:
            return None
        # A note beside a file is of that file alone if it has its hash.
        content = None if beside is None else _word(value["file_sha256"])
        return TripsNote(maker, _whole(value["trips"]), _word(value["trips_sha256"]), content)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _note_beside(path: Path) -> bytes | None:
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    return text if len(text) <= MOST_BYTES else None


def _parquet_note(path: Path) -> bytes | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path).metadata or {}
    except pa.ArrowException:
        return None
    text: bytes = metadata.get(METADATA_KEY.encode(), b"")
    return text if len(text) <= MOST_BYTES else None


def file_stem(maker: TripsMaker) -> str:
    """Return the usual name of a file of these trips, without its ending: `test-astar`."""
    word = Path(maker.requests.source).stem.replace(":", "-").replace(",", "-")
    return f"{word}-{maker.search}"


def place_for(folder: Path, maker: TripsMaker) -> Path:
    """Return the CSV file of `folder` for the trips of `maker`; it never holds those of another.

    That is the file that holds them already, else the usual name if that is free, else one with
    the maker's hash.
    """
    stem = file_stem(maker)
    plain = folder / f"{stem}.csv"
    named = folder / f"{stem}-{maker.sha256[:DIGITS]}.csv"
    for path in (plain, named):
        if path.exists() and other_maker(path, maker) is None:
            return path
    return named if plain.exists() else plain


def other_maker(path: Path, maker: TripsMaker) -> str | None:
    """Return how the trips in `path` were made otherwise than by `maker`, in words.

    None where there is no such file, or it holds the trips of `maker`.
    """
    if not path.exists():
        return None
    note = read_note(path)
    if note is None:
        return "it does not say who made them"
    return _told(note.maker, maker) or (
        None if note.is_beside(path) else "they were changed since they were generated")


def _told(first: TripsMaker, second: TripsMaker) -> str | None:
    found = first.differences(second)
    return "; ".join(f"{what}: {values}" for what, values in found.items()) or None


def files_made_by(folder: Path, maker: TripsMaker) -> Iterator[tuple[Path, TripsNote]]:
    """Yield the trip files of `folder` that say they were made by `maker`."""
    for path in _trip_files(folder):
        note = read_note(path)
        if note is not None and note.maker == maker and note.is_beside(path):
            yield path, note


def closest_other(folder: Path, maker: TripsMaker) -> tuple[Path, str] | None:
    """Return the trip file of `folder` that least differs from one of `maker`, and in what.

    None where there is no other. Files that do not say who made them come last.
    """
    found = []
    for path in _trip_files(folder):
        note = read_note(path)
        told = other_maker(path, maker)
        if told is not None:
            found.append((99 if note is None else len(note.maker.differences(maker)), path, told))
    return min(found)[1:] if found else None


def _trip_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*")
                  if path.suffix in (".csv", ".parquet") and not path.name.startswith(".")
                  and not path.name.endswith(".snapped.csv") and path.is_file())


def unlike_makers(
    makers: Mapping[str, TripsMaker | None], split: str, city: Identity
) -> tuple[str, ...]:
    """Return in sentences what sets of trips that are shown side by side do not have in common.

    Other weights are what a comparison is about; all else should be equal, and where it is not a
    difference of the figures may come from it.

    Args:
        makers: Who made each set, by its name; None where the file does not say.
        split: The split whose real trips the sets are judged against.
        city: The city of those trips.
    """
    known = {name: maker for name, maker in makers.items() if maker is not None}
    sentences = []
    for name, maker in known.items():
        if maker.city != city:
            sentences.append(f"{name} was generated in {maker.city} and is judged in {city}")
        asked = {"test-trips": "test"}.get(maker.requests.source, maker.requests.source)
        if asked in ("train", "test") and asked != split:
            sentences.append(f"{name} answers {asked} requests and is judged against {split} trips")
    if len(makers) > 1 and len(known) < len(makers) and known:
        silent = ", ".join(name for name in makers if name not in known)
        sentences.append(f"how the trips of {silent} were made is not known")
    first = next(iter(known), None)
    for name, maker in known.items():
        # Other weights are what is compared.
        told = _told(replace(known[str(first)], student=maker.student), maker)
        if told:
            sentences.append(f"{first} and {name} were not made alike ({told})")
    return tuple(sentences)
