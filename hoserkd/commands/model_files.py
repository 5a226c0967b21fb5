"""Student files that are named on the command line: ours, public ones, and bundles."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hoserkd.commands.context import Context, StoredSettings
from hoserkd.commands.places import Paths
from hoserkd.engine.bounded_json import read_json
from hoserkd.engine.identity import Identity
from hoserkd.errors import BundleError, CheckpointError, DataError, reason_of

if TYPE_CHECKING:
    from hoserkd.engine.bundle import OpenBundle

ARCHIVES = (".zip", ".zst")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A student, and what came with it."""

    file: Path
    city: Path | None = None
    """Of a bundle that holds its roads; None: the city has to be found here."""
    stored: StoredSettings | None = None
    """Of a bundle: the settings of its run, and the hash of its city."""


def open_model_file(paths: Paths, path: Path) -> ModelFile:
    """Return the student in a file; a bundle is unpacked for it.

    Raises:
        CheckpointError: there is no such file.
        BundleError: a bundle is damaged.
    """
    path = path.expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file",
                              hint="a student file, a public best.pth, or a bundle is wanted")
    if path.suffix not in ARCHIVES:
        return ModelFile(path)
    from hoserkd.engine.bundle import open_bundle

    bundle = open_bundle(path, paths.data_dir / "bundles")
    return ModelFile(bundle.model, bundle.city, _stored(path, bundle))


def city_of(context: Context, opened: ModelFile, flag: str | None) -> Path:
    """Return the city that a model is to work on: the one named, its own, or one found here.

    Raises:
        BundleError: a bundle without roads was made on a city that is not here.
    """
    if flag is None and opened.city is not None:
        return opened.city
    try:
        return context.city_dir(flag)
    except DataError as error:
        if flag is not None or opened.stored is None:
            raise
        raise BundleError(error.message, hint=(
            "the bundle holds no roads: prepare the city from the files it was made from, or "
            "name it with --city NAME|DIR")) from error


def _stored(path: Path, bundle: "OpenBundle") -> StoredSettings:
    from hoserkd.engine.bundle_documents import model_settings

    try:
        values = model_settings(bundle.manifest.about, read_json(bundle.settings, non_finite=True))
        city = bundle.manifest.about["city"]
        return StoredSettings(f"bundle {path.name}", values,
                              Identity("city", city["name"], city["sha256"]))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: its settings cannot be read: {reason_of(error)}",
                          hint="was it made by another version of hoserkd?") from error
