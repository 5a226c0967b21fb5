"""Where the artefacts lie that a recorded run was made from."""

from pathlib import Path

from hoserkd.engine.identity import Identity
from hoserkd.engine.places import CITIES, Finder
from hoserkd.store.records import RunRecord


def recorded_city(run: RunRecord) -> Identity | None:
    """Return the city that a run was made on; None: none, or its record does not say."""
    if run.made_from.city is not None:
        return run.made_from.city
    if not run.data_sha256:
        return None
    # Recorded before places were: the name is that of the settings.
    city = run.settings().get("city")
    name = city.get("name") if isinstance(city, dict) else None
    return Identity("city", str(name or ""), run.data_sha256)


def data_folders(data_dir: Path, recorded: Path | None) -> tuple[Path, ...]:
    """Return the data folders to search: the present one, then the one of the recording."""
    return (data_dir,) if recorded in (None, data_dir.absolute()) else (data_dir, recorded)


def find_city(run: RunRecord, data_dir: Path) -> Path | None:
    """Return the folder of the city that a run was made on; None: its record names no city.

    Raises:
        DataError: it is not here; tells all that was tried.
    """
    wanted = recorded_city(run)
    if wanted is None:
        return None
    finder = Finder(CITIES, data_folders(data_dir, run.made_from.data_dir))
    return finder.recorded(wanted, f"run {run.name}")
