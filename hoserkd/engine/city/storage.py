"""A prepared city on disk: a manifest, and memory-mapped arrays in a folder named by content.

    CITY/manifest.json              names the content folder; replaced as a whole, last
    CITY/content-<hash>/network/*.npy
    CITY/content-<hash>/trips/{train,val,test}/{offset,road,entered_at_s}.npy

A city that is prepared again stays whole for its readers: the manifest is replaced at once, and the
old content folder stays until its last reader is done (`holding.py`). A process that was killed
leaves at most a folder that no manifest names, which the next one removes.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from hoserkd.engine.city.checks import check_network, check_trips, checked_times
from hoserkd.engine.city.holding import Hold, remove_unless_held
from hoserkd.engine.files import file_sha256, read_json, write_json
from hoserkd.engine.names import is_hash
from hoserkd.engine.npy import NOT_AN_ARRAY, save_npy
from hoserkd.engine.types import Candidates, RoadNetwork, TimeStatistics, TrajectorySet
from hoserkd.errors import DataError

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

FORMAT = 1
SPLITS = ("train", "val", "test")
CONTENT = "content-"
CONTENT_NAME = re.compile(r"content-[0-9a-f]{1,64}")
NETWORK_ARRAYS = (
    "road_id", "length_m", "highway", "free_flow_kmh", "centroid_lonlat", "start_lonlat",
    "end_lonlat", "shape_offset", "shape_lonlat", "adjacency", "adjacency_attr", "zone",
    "zone_transitions",
)
HOLD_TRIES = 5
TRIP_ARRAYS = ("offset", "road", "entered_at_s")


@dataclass(frozen=True, slots=True)
class City:
    """A prepared city."""

    directory: Path
    name: str
    sha256: str
    """Hash of the contents, in hex: the key of whatever is computed from the city."""
    network: RoadNetwork
    times: TimeStatistics
    manifest: dict[str, Any]
    hold: Hold | None = field(default=None, repr=False, compare=False)
    """Keeps the content folder as long as this city is in use, whatever is prepared meanwhile."""

    @property
    def has_trips(self) -> bool:
        """Whether recorded trips came with it, which is not so for a city out of a bundle."""
        return (self.directory / str(self.manifest["content"]) / "trips").is_dir()

    def split(self, name: str) -> TrajectorySet:
        """Return the trips of `train`, `val` or `test` as memory maps.

        Raises:
            DataError: the stored arrays are missing or damaged; a city out of a bundle has none.
            ValueError: there is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {name}")
        if not (self.directory / str(self.manifest["content"])).is_dir():
            raise DataError(
                f"{self.directory}: the city was replaced or removed since it was loaded",
                hint="start the command again")
        if not self.has_trips:
            raise DataError(
                f"{self.directory}: holds no {name} trips, as a city out of a bundle does not",
                hint="give OD pairs in a file (--od FILE.csv), or the whole city with --city")
        try:
            trips = TrajectorySet(**{
                array: _load_array(
                    self.directory, self.manifest, f"trips/{name}/{array}", mapped=True)
                for array in TRIP_ARRAYS
            })
            check_trips(trips, self.network.roads)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self.directory / "manifest.json", f"{name}: {error}") from error
        return trips

    def to_pyg(self) -> "HeteroData":
        """Return roads, relations, adjacency and zones as a graph of PyTorch Geometric.

        `hoserkd.engine.city.pyg.build_graph` lists its nodes, edges, features and units.
        """
        from hoserkd.engine.city.pyg import build_graph

        graph = build_graph(self.network)
        graph.city, graph.city_sha256 = self.name, self.sha256
        return graph


def load_city(directory: str | Path, timezone: str | None = None) -> City:
    """Return the prepared city of a folder.

    Args:
        timezone: IANA name of the zone whose clocks its trips show; None: what its manifest says.

    Raises:
        DataError: the folder holds no city, or one of another version, or a damaged one.
    """
    directory = Path(directory)
    manifest, hold = _held_manifest(directory)
    try:
        arrays: dict[str, Any] = {
            name: _load_array(directory, manifest, f"network/{name}") for name in NETWORK_ARRAYS
        }
        verbatim = "network/highway_verbatim"
        network = RoadNetwork(
            **arrays,
            highway_names=tuple(manifest["highway_names"]),
            candidates=Candidates(
                offset=_load_array(directory, manifest, "network/candidate_offset"),
                road=_load_array(directory, manifest, "network/candidate_road"),
            ),
            highway_verbatim=(
                _load_array(directory, manifest, verbatim)
                if verbatim in manifest["arrays"] else None
            ),
            timezone=timezone or _text_or_none(manifest.get("timezone")),
        )
        check_network(network)
        return City(
            directory=directory,
            name=str(manifest["name"]),
            sha256=str(manifest["sha256"]),
            network=network,
            times=checked_times(manifest["times"]),
            manifest=manifest,
            hold=hold,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(directory / "manifest.json", f"{error!r}") from error


def _held_manifest(directory: Path) -> tuple[dict[str, Any], Hold | None]:
    """Return the manifest and a hold on the content that it names."""
    for _ in range(HOLD_TRIES):
        manifest = read_manifest(directory)
        try:
            return manifest, Hold(directory / str(manifest["content"]))
        except FileNotFoundError:
            # Prepared again between the two lines; or it is not there at all, which loading says.
            continue
        except OSError:
            break
    return manifest, None


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a prepared city.

    Raises:
        DataError: there is none, or it is damaged or of another version.
    """
    path = directory / "manifest.json"
    try:
        manifest = read_json(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{directory}: holds no prepared city",
            hint="make it with `hoserkd prepare`, or name another with --city",
        ) from error
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise DataError(
            f"{path}: city format {found}, this version reads {FORMAT}",
            hint="run `hoserkd prepare` again",
        )
    # A city out of a bundle is a stranger's: what it names must lie in its own folder.
    if not re.fullmatch(rf"{CONTENT}[0-9a-f]+", str(manifest.get("content"))):
        raise _damaged(path, f"content {manifest.get('content')!r} is no folder of a city")
    # What is computed from the city lies in folders of this name.
    if not is_hash(str(manifest.get("sha256"))):
        raise _damaged(path, f"sha256 {str(manifest.get('sha256'))[:40]!r} is no hash")
    return manifest


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: damaged: {what}", hint="run `hoserkd prepare --force`")


def _load_array(
    directory: Path, manifest: dict[str, Any], name: str, *, mapped: bool = False
) -> Shaped[np.ndarray, "..."]:
    content = str(manifest["content"])
    if not CONTENT_NAME.fullmatch(content):
        raise _damaged(directory / "manifest.json", f"{content[:40]!r} is no folder of a city")
    path = directory / content / f"{name}.npy"
    said = manifest["arrays"][name]
    try:
        # As a map first: a header may claim any size, and only the file's own is believed.
        array: Shaped[np.ndarray, "..."] = np.load(path, mmap_mode="r", allow_pickle=False)
        if not mapped:
            array = np.array(array)
    except NOT_AN_ARRAY as error:
        raise _damaged(path, str(error)) from error
    if list(array.shape) != said["shape"] or str(array.dtype) != said["dtype"]:
        raise _damaged(path, f"{array.dtype} {list(array.shape)}, the manifest says {said}")
    return array


@dataclass(slots=True)
class CityWriter:
    """A city being written: arrays first, then `commit`."""

    directory: Path
    _staging: Path
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Return where the array `name` is being written."""
        return self._staging / f"{name}.npy"

    def save_array(self, name: str, values: Shaped[np.ndarray, "..."]) -> None:
        """Write a whole array."""
        save_npy(self.path(name), values)

    def save_network(self, network: RoadNetwork) -> None:
        """Write the arrays of the road network."""
        for name in NETWORK_ARRAYS:
            self.save_array(f"network/{name}", getattr(network, name))
        self.save_array("network/candidate_offset", network.candidates.offset)
        self.save_array("network/candidate_road", network.candidates.road)
        if network.highway_verbatim is not None:
            self.save_array("network/highway_verbatim", network.highway_verbatim)

    def read_split(self, name: str) -> TrajectorySet:
        """Return a split that has been written, as memory maps."""
        return TrajectorySet(
            **{a: np.load(self.path(f"trips/{name}/{a}"), mmap_mode="r") for a in TRIP_ARRAYS}
        )

    def commit(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Make what was written the city; return the manifest with hashes added.

        Args:
            manifest: `name`, `highway_names`, `times` and whatever is worth keeping.
        """
        for path in sorted(self._staging.rglob("*.npy")):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            name = path.relative_to(self._staging).with_suffix("").as_posix()
            self.arrays[name] = {
                "shape": list(array.shape), "dtype": str(array.dtype), "sha256": file_sha256(path)
            }
        sha256 = self._content_sha256(manifest)
        content = f"{CONTENT}{sha256[:16]}"
        whole = {"format": FORMAT, **manifest, "sha256": sha256, "content": content,
                 "arrays": self.arrays}
        target = self.directory / content
        if target.exists() and self._is_in(target):
            # Others may be reading it under its path.
            shutil.rmtree(self._staging)
        else:
            if target.exists():
                # Damaged. The rename hides it before it is removed.
                old = self._staging.with_suffix(".old")
                shutil.rmtree(old, ignore_errors=True)  # of a commit that the disk had no room for
                target.rename(old)
            self._staging.rename(target)
        write_json(self.directory / "manifest.json", whole)
        sweep(self.directory, keep=content)
        return whole

    def _is_in(self, content: Path) -> bool:
        """Return whether a folder holds these arrays, byte for byte."""
        return all((content / f"{name}.npy").is_file()
                   and file_sha256(content / f"{name}.npy") == said["sha256"]
                   for name, said in self.arrays.items())

    def _content_sha256(self, manifest: dict[str, Any]) -> str:
        digest = hashlib.sha256()
        parts = {
            "arrays": {name: said["sha256"] for name, said in self.arrays.items()},
            "highway_names": list(manifest["highway_names"]),
            "times": manifest["times"],
        }
        digest.update(json.dumps(parts, sort_keys=True).encode())
        return digest.hexdigest()


@contextmanager
def write_city(directory: Path) -> Iterator[CityWriter]:
    """Give a writer for a new state of the city; without `commit` the old one stays."""
    directory.mkdir(parents=True, exist_ok=True)
    staging = directory / f".{CONTENT}{os.getpid()}.tmp"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield CityWriter(directory, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def sweep(directory: Path, keep: str) -> None:
    """Remove content folders that nothing names and nobody reads; the caller holds the city's
    lock."""
    for path in directory.iterdir():
        stale = path.name.startswith((CONTENT, f".{CONTENT}")) and path.name != keep
        if stale and path.is_dir():
            remove_unless_held(path)


def save_city(
    directory: Path,
    name: str,
    network: RoadNetwork,
    splits: dict[str, TrajectorySet],
    times: TimeStatistics,
) -> City:
    """Write a city made of records, as tests and converters have them, and return it loaded."""
    with write_city(directory) as writer:
        writer.save_network(network)
        for split in SPLITS:
            for array in TRIP_ARRAYS:
                writer.save_array(f"trips/{split}/{array}", getattr(splits[split], array))
        writer.commit({
            "name": name,
            "highway_names": network.highway_names,
            "times": {"log1p_mean": times.log1p_mean, "log1p_std": times.log1p_std},
        })
    return load_city(directory)


def pack_trips(
    roads: list[list[int]], times: list[list[int]]
) -> TrajectorySet:
    """Return trips given as lists, packed."""
    offset: Int64[np.ndarray, " N+1"] = np.cumsum([0, *map(len, roads)], dtype=np.int64)
    road: Int32[np.ndarray, " P"] = np.array([r for trip in roads for r in trip], np.int32)
    entered: Int64[np.ndarray, " P"] = np.array([t for trip in times for t in trip], np.int64)
    return TrajectorySet(offset=offset, road=road, entered_at_s=entered)
