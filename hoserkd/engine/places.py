"""Where a prepared city or a teacher lies: one way to find it, for every command.

What a user names is a name under a data folder, else a folder. What a run was made from is looked
for where it was then, next by its hash among all that lie under the data folders, last by its
name; and only what has the recorded hash is taken.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hoserkd.engine.files import parse_json
from hoserkd.engine.identity import SHORT, Identity, teacher_identity
from hoserkd.engine.names import check_name, is_path
from hoserkd.errors import DataError, HoserkdError, TeacherError
from hoserkd.text import did_you_mean

MOST_NAMED = 8
"""Names that an error lists at most."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind of artefact that lies in folders."""

    word: str
    folder: str
    """Under a data folder; holds one folder for each artefact."""
    mark: str
    """The file by which a folder is known to hold one."""
    identify: Callable[[Path], Identity | None]
    """Returns which one a folder holds; None: nothing, or something damaged."""
    error: type[HoserkdError]
    hint: str

    def holds(self, directory: Path) -> bool:
        """Return whether a folder holds such an artefact, sound or damaged."""
        return (directory / self.mark).is_file()

    def within(self, data_dir: Path) -> list[Path]:
        """Return the folders of all that lie under a data folder, by name."""
        folder = data_dir / self.folder
        return sorted(path.parent for path in folder.glob(f"*/{self.mark}")
                      if not path.parent.name.startswith("."))


def _identify_city(directory: Path) -> Identity | None:
    try:
        manifest = parse_json((directory / CITIES.mark).read_text("utf-8"))
        return Identity("city", str(manifest["name"]), str(manifest["sha256"]), directory)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _identify_teacher(directory: Path) -> Identity | None:
    from hoserkd.engine.teacher.card import load_card

    try:
        return teacher_identity(load_card(directory), directory)
    except TeacherError:
        return None


CITIES = Shelf("prepared city", "cities", "manifest.json", _identify_city, DataError,
               "make it with `hoserkd prepare`, or name another: --city NAME|DIR")
TEACHERS = Shelf("teacher", "teachers", "teacher.json", _identify_teacher, TeacherError,
                 "run `hoserkd train-teacher`, or `hoserkd export-teacher CHECKPOINT --output "
                 "DIR`; --teacher takes NAME|DIR")


@dataclass(slots=True)
class Finder:
    """Looks for one artefact and remembers where, so that an error can tell."""

    shelf: Shelf
    data_dirs: Sequence[Path]
    """Names are looked up in the first; what is recorded may lie in any, searched in this order."""
    tried: list[str] = field(default_factory=list)

    def named(self, reference: str, *, folders: bool = True) -> Path:
        """Return the folder of what a user named: a name under a data folder, else a folder.

        Args:
            reference: `NAME|DIR`; what holds a `/` or starts with `.` or `~` is a folder only.
            folders: Whether a bare word may be a folder of the working directory too.

        Raises:
            HoserkdError: there is none; tells where it was looked for and what there is.
        """
        for place in self._meant(reference, folders):
            if self.shelf.holds(place):
                return place
            self.tried.append(str(place))
        known = [path.name for path in self.shelf.within(self.data_dirs[0])]
        raise self.shelf.error(
            f"no {self.shelf.word} {reference!r}: tried {', '.join(self.tried)}"
            + (did_you_mean(reference, known) or _there_are(known)), hint=self.shelf.hint)

    def destination(self, reference: str) -> Path:
        """Return where to write what a user names: where it is, else where a name belongs.

        Raises:
            UsageError: it is neither a name nor a folder.
        """
        if not is_path(reference):
            check_name(reference, self.shelf.word)
        places = list(self._meant(reference, folders=True))
        return next((place for place in places if self.shelf.holds(place)), places[0])

    def recorded(self, wanted: Identity, whose: str) -> Path:
        """Return the folder of what something was made from, wherever it lies now.

        Args:
            wanted: As recorded: hash, name and place.
            whose: What was made from it, such as `run distilled`; begins the message.

        Raises:
            HoserkdError: nothing with the recorded hash is here; tells all that was tried.
        """
        for place in self._where(wanted):
            if self.shelf.identify(place) == wanted:
                return place
        self._tell_name(wanted)
        raise self.shelf.error(
            f"{whose} was made with {wanted}, which is not here: tried {'; '.join(self.tried)}",
            hint=f"bring the {wanted.kind} of that hash back, or take another: "
                 f"--{wanted.kind} NAME|DIR")

    def _meant(self, reference: str, folders: bool) -> Iterator[Path]:
        if not is_path(reference):
            yield (self.data_dirs[0] / self.shelf.folder / reference).absolute()
        if folders or is_path(reference):
            yield Path(reference).expanduser().absolute()

    def _where(self, wanted: Identity) -> Iterator[Path]:
        if wanted.place is not None:
            yield wanted.place
            self.tried.append(f"its recorded place {wanted.place} ({self._what(wanted.place)})")
        for data_dir in self.data_dirs:
            # What still bears the name first: among equals it is the one that people mean.
            found = sorted(self.shelf.within(data_dir),
                           key=lambda path: (path.name != wanted.name, path.name))
            yield from found
            self.tried.append(f"its hash among {len(found)} in {data_dir / self.shelf.folder}")

    def _tell_name(self, wanted: Identity) -> None:
        for data_dir in self.data_dirs:
            place = data_dir / self.shelf.folder / wanted.name
            if place != wanted.place:
                self.tried.append(f"its name, {place} ({self._what(place)})")

    def _what(self, place: Path) -> str:
        found = self.shelf.identify(place)
        if found is not None:
            return f"hash {found.sha256[:SHORT]}"
        return "damaged" if self.shelf.holds(place) else "nothing there"


def _there_are(known: Sequence[str]) -> str:
    if not known:
        return "; there is none yet"
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return f"; there are: {', '.join(known[:MOST_NAMED])}{more}"
