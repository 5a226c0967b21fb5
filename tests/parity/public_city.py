"""The recordings of the public student, and the city they were made on, prepared by us."""

from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from hoserkd.engine.city.storage import City, load_city
from hoserkd.engine.config import CityConfig
from hoserkd.engine.events import Silent, never_stop
from hoserkd.engine.prepare import prepare_city

RECORDED = Path(__file__).parent.parent / "data" / "hoser"


@lru_cache(maxsize=1)
def public_city() -> City:
    """Return the recorded city, prepared once a test run."""
    directory = Path(mkdtemp(prefix="hoserkd-parity-"))
    prepare_city(
        CityConfig(name="parity"), RECORDED / "city", directory,
        force=False, observer=Silent(), stop=never_stop,
    )
    return load_city(directory)


@lru_cache(maxsize=1)
def expected() -> dict[str, np.ndarray]:
    """Return what the public code computed for the first 24 test trips."""
    with np.load(RECORDED / "expected.npz") as recorded:
        return dict(recorded)
