"""The files of a source folder."""

from pathlib import Path

from hoserkd.engine.city.source import find_source_file
from hoserkd.engine.city.storage import SPLITS
from hoserkd.engine.trips.columns import ENDINGS

PARTITION = "road_network_partition"
TRANSITIONS = "zone_trans_mat.npy"


def find_inputs(source: Path) -> dict[str, Path]:
    """Return the files of a source folder by their plain names, those of zones if they are there.

    Raises:
        DataError: a needed file is missing, or there in several forms.
    """
    inputs = {f"roadmap{table}": find_source_file(
        source, "roadmap", (table, f"{table}.gz", f"{table}.zst")) for table in (".geo", ".rel")}
    for split in SPLITS:
        inputs[f"{split}.csv"] = find_source_file(source, split, ENDINGS)
    for name in (PARTITION, TRANSITIONS):
        if (source / name).is_file():
            inputs[name] = source / name
    return inputs
