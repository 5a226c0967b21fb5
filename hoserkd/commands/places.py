"""The options that every command takes, and the folders that they and the environment name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options that every command takes, wherever they stand on the line."""

    sets: tuple[str, ...] = ()
    store: Path | None = None
    data_dir: Path | None = None
    json_output: bool = False
    quiet: bool = False
    verbosity: int = 0
    seed: int | None = None
    show_config: bool = False


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie."""

    home: Path
    data_dir: Path
    store: Path


def find_paths(options: GlobalOptions, environ: Mapping[str, str] = os.environ) -> Paths:
    """Return the folders that options and environment name, else the user's data folder."""
    home = environ.get("HOSERKD_HOME")
    if not home:
        from platformdirs import user_data_dir

        home = user_data_dir("hoserkd", appauthor=False)
    place = Path(home).expanduser()
    data = options.data_dir or environ.get("HOSERKD_DATA_DIR") or place
    store = options.store or environ.get("HOSERKD_STORE") or place / "store"
    return Paths(place, Path(data).expanduser(), Path(store).expanduser())
