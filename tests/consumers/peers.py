"""What the tests of the public programs share."""

import shutil
from pathlib import Path

import numpy as np

from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.prepare import prepare_city
from hoserkd.engine.types import GeneratedTrips

DATA = Path(__file__).parents[1] / "data" / "hoser"
HOSER_NEEDS = ("torch", "torch_geometric", "pandas", "sklearn", "shapely", "haversine", "yaml",
               "loguru", "tensorboard")


def working_copy(public: Path, folder: Path) -> Path:
    """Return a copy of the public HOSER code whose programs run on a CPU."""
    copy = shutil.copytree(public, folder / "HOSER", ignore=shutil.ignore_patterns(".git"))
    for program in ("gene.py", "train.py"):
        text = (copy / program).read_text("utf-8")
        assert "f'cuda:{args.cuda}'" in text, f"{program} chooses its device in another way now"
        (copy / program).write_text(text.replace("f'cuda:{args.cuda}'", "'cpu'"), "utf-8")
    return copy


def prepared(source: Path, directory: Path) -> City:
    """Return a source folder prepared as a city."""
    prepare_city(CityConfig(name="town", zones=6), source, directory, force=False,
                 observer=Silent(), stop=never_stop)
    return load_city(directory)


def paths_of(trips: GeneratedTrips) -> list[tuple[list[int], list[int]]]:
    """Return the roads and times of each trip."""
    bounds = zip(trips.offset[:-1].tolist(), trips.offset[1:].tolist(), strict=True)
    return [(trips.road[a:b].tolist(), np.asarray(trips.entered_at_s)[a:b].tolist())
            for a, b in bounds]
