"""A folder that the public HOSER code runs when it is copied into a checkout of it.

    README.md                             how, with the command line
    config/CITY.yaml                      dimensions of the student
    data/CITY/roadmap.geo, roadmap.rel    roads, numbered 0..R-1 as the public code counts them
    data/CITY/road_network_partition      zone of each road, a line a road
    data/CITY/zone_trans_mat.npy          zone changes of the training trips
    data/CITY/{train,val,test}.csv        recorded trips, only where they may leave
    save/CITY/seed0/best.pth              the student
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hoserkd.engine.city.storage import SPLITS, City
from hoserkd.engine.config import StudentConfig, TrainConfig
from hoserkd.engine.files import new_folder, replacing
from hoserkd.engine.npy import save_npy
from hoserkd.engine.student.public_export import PUBLIC_MAX_LEN, save_public_checkpoint
from hoserkd.engine.student.storage import LoadedStudent
from hoserkd.engine.trips.public_form import numbering_caveat
from hoserkd.engine.types import RoadNetwork
from hoserkd.text import file_stem

SEED = 0
"""The public programs look for a student under `save/CITY/seed0` if nothing else is said."""
GEO_COLUMNS = ("geo_id", "type", "coordinates", "highway", "length")
REL_COLUMNS = ("rel_id", "type", "origin_id", "destination_id")
TRIP_COLUMNS = ("mm_id", "entity_id", "traj_id", "rid_list", "time_list")
IDS = "road_ids.csv"


@dataclass(frozen=True, slots=True)
class PublicFolder:
    """What the folder is made of."""

    name: str
    """Of the run, for the README."""
    student: LoadedStudent
    city: City
    train: TrainConfig
    """Written into the YAML, so that the public `train.py` could go on with these settings."""
    max_len: int = PUBLIC_MAX_LEN
    """Longest trip of the settings, and side of the causal masks in the checkpoint."""
    real_trips: bool = False
    """Whether the recorded trips go with it."""
    caveats: tuple[str, ...] = ()
    """What to know about the student in the public code, a sentence each."""

    @property
    def dataset(self) -> str:
        """Name of the city as `--dataset` takes it."""
        return file_stem(self.city.name)

    @property
    def command(self) -> str:
        """Command line that generates trips in a checkout of the public code."""
        return f"python gene.py --dataset {self.dataset} --seed {SEED} --cuda 0 --num_gene 100"


def save_public_folder(folder: Path, content: PublicFolder) -> None:
    """Write the folder, whole or not at all.

    Raises:
        DataError: recorded trips are wanted and the city came without them.
        UsageError: the folder exists and is not empty.
    """
    with new_folder(folder) as staging:
        data = staging / "data" / content.dataset
        save_roads(data, content.city.network, content.student.meta.highway_types)
        if content.real_trips:
            for split in SPLITS:
                save_trips(data / f"{split}.csv", content.city, split)
        weights = staging / "save" / content.dataset / f"seed{SEED}" / "best.pth"
        save_public_checkpoint(weights, content.student, content.city, content.max_len)
        with replacing(staging / "config" / f"{content.dataset}.yaml", "w") as file:
            yaml.safe_dump(public_settings(content), file, sort_keys=False)
        with replacing(staging / "README.md", "w") as file:
            file.write(_readme(content))


def save_roads(folder: Path, network: RoadNetwork, highway_types: int) -> None:
    """Write the road tables, the zones and their transitions.

    Args:
        highway_types: How many classes of road the student knows, which tells whether it counts
            lists of classes as the public code does.
    """
    highway = _highway_texts(network, highway_types)
    with replacing(folder / "roadmap.geo", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(GEO_COLUMNS)
        for road in range(network.roads):
            # Adding zero makes -0.0 the 0.0 that it is: public code compares the text of ends.
            shape = network.shape_lonlat[network.shape_offset[road]:network.shape_offset[road + 1]]
            writer.writerow((road, "LineString", json.dumps((shape + 0.0).tolist()), highway[road],
                             float(network.length_m[road])))
    candidates = network.candidates
    origin = np.repeat(np.arange(network.roads), np.diff(candidates.offset))
    with replacing(folder / "roadmap.rel", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(REL_COLUMNS)
        pairs = zip(origin.tolist(), candidates.road.tolist(), strict=True)
        writer.writerows((number, "geo", a, b) for number, (a, b) in enumerate(pairs))
    with replacing(folder / "road_network_partition", "w") as file:
        file.writelines(f"{zone}\n" for zone in network.zone.tolist())
    save_npy(folder / "zone_trans_mat.npy", network.zone_transitions.astype(np.int64))
    if numbering_caveat(network):
        with replacing(folder / IDS, "w") as file:
            file.write("geo_id,road_id\n")
            file.writelines(f"{index},{road}\n" for index, road in enumerate(network.road_id))


def save_trips(path: Path, city: City, split: str) -> None:
    """Write a split of recorded trips in the public layout, roads numbered 0..R-1."""
    trips = city.split(split)
    times = np.datetime_as_string(np.asarray(trips.entered_at_s).astype("datetime64[s]"))
    bounds = zip(trips.offset[:-1].tolist(), trips.offset[1:].tolist(), strict=True)
    with replacing(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TRIP_COLUMNS)
        for number, (first, last) in enumerate(bounds):
            # Without brackets, since the distilling fork splits at commas. The source format ends
            # its wall clocks in Z.
            writer.writerow((number, number, number,
                             ",".join(map(str, trips.road[first:last].tolist())),
                             ",".join(f"{time}Z" for time in times[first:last])))


def public_settings(content: PublicFolder) -> dict[str, Any]:
    """Return the settings as `config/CITY.yaml` holds them."""
    student, train = content.student.meta.config, content.train
    runtime: Mapping[str, None] = dict.fromkeys(("len", "type", "lon", "lat"))
    return {
        "road_network_encoder_config": {
            "road_id_emb_dim": student.road_id_dim,
            **_attribute_widths(student),
            "intersection_emb_dim": student.hidden_dim,
            "zone_id_emb_dim": student.hidden_dim,
            "road_id_num_embeddings": None,
            "type_num_embeddings": None,
            "zone_id_num_embeddings": content.city.network.zones,
        },
        # Filled in by the public code when it runs.
        "road_network_encoder_feature": {
            "road_attr": dict(runtime), "road_edge_index": None, "intersection_attr": None,
            "zone_edge_index": None, "zone_edge_weight": None,
        },
        "trajectory_encoder_config": {
            "hidden_dim": student.hidden_dim, "num_heads": student.heads,
            "num_layers": student.layers, "dropout": student.dropout,
            "max_len": content.max_len,
        },
        "navigator_config": {"hidden_dim": student.hidden_dim},
        "optimizer_config": {
            "max_epoch": train.epochs, "batch_size": train.batch_size * train.accumulation,
            "learning_rate": train.learning_rate, "weight_decay": train.weight_decay,
            "warmup_ratio": train.warmup_share, "max_norm": train.clip,
        },
    }


def _attribute_widths(student: StudentConfig) -> dict[str, int]:
    return {f"{name}_emb_dim": student.attribute_dim for name in ("len", "type", "lon", "lat")}


def _highway_texts(network: RoadNetwork, types: int) -> list[str]:
    """Return a class for each road that the public code ranks as the student does.

    It sorts the texts, splits lists for two cities by name alone, and fails on numbers: names
    that it would rank otherwise give way to `class_00`, `class_01`, ...
    """
    verbatim = network.highway_verbatim
    if verbatim is None or types == len(network.highway_names):
        names = list(network.highway_names)
        if names == sorted(names) and all(name.replace("_", "").isalpha() and name.isascii()
                                          and name.lower() not in NOT_A_NAME for name in names):
            return [names[rank] for rank in network.highway.tolist()]
        verbatim = network.highway
    width = len(str(types))
    return [f"class_{rank:0{width}d}" for rank in verbatim.tolist()]


NOT_A_NAME = frozenset(("nan", "na", "null", "none", "n", "true", "false", "inf", "infinity"))
"""What pandas takes for a missing or other value."""


def _readme(content: PublicFolder) -> str:
    data = f"data/{content.dataset}"
    trips = (f"Recorded trips are in `{data}`: mind who may have them."
             if content.real_trips else
             f"`gene.py` draws its requests from `{data}/train.csv`, which is not here, since "
             "recorded trips are private: put the city's own there"
             + (f", with the roads numbered as in `{data}/{IDS}`"
                if numbering_caveat(content.city.network) else "")
             + ", or export with `--with-real-trips`.")
    lines = [
        f"# {content.name} for the public HOSER code", "",
        f"Student of the run {content.name}, city {content.city.name}, features "
        f"{content.student.meta.config.features}, trips of up to {content.max_len} roads.", "",
        "It runs in the public code of September 2025 or later (commit 0158295 and after).", "",
        "    git clone https://github.com/caoji2001/HOSER",
        "    cp -r config data save HOSER/",
        "    cd HOSER",
        f"    {content.command}", "", trips, "",
        f"The file that it writes, `gene/{content.dataset}/seed{SEED}/*.csv`, is judged by "
        "`hoserkd evaluate FILE`.",
    ]
    return "\n".join([*lines, *(f"\n{caveat}" for caveat in content.caveats)]) + "\n"
