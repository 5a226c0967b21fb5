"""Student files that are named on the command line: ours, public ones, and bundles."""

from dataclasses import dataclass
from pathlib import Path

from hoserkd.commands.context import Context
from hoserkd.errors import CheckpointError

ARCHIVES = (".zip", ".zst")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A student, and the city that came with it."""

    file: Path
    city: Path | None
    """Of a bundle that holds its roads; None: the city has to be named."""


def open_model_file(context: Context, path: Path) -> ModelFile:
    """Return the student in a file; a bundle is unpacked for it.

    Raises:
        CheckpointError: there is no such file.
        DataError: a bundle is damaged.
    """
    path = path.expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file",
                              hint="a student file, a public best.pth, or a bundle is wanted")
    if path.suffix not in ARCHIVES:
        return ModelFile(path, None)
    from hoserkd.engine.bundle import open_bundle

    bundle = open_bundle(path, context.paths.data_dir / "bundles")
    return ModelFile(bundle.model, bundle.city)
