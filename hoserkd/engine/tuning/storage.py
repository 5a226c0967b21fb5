"""Where a study is kept: Optuna's journal in a file, or whatever an Optuna URL names."""

import importlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalRedisBackend

from hoserkd.engine.files import parse_json
from hoserkd.engine.study_journal import StudyJournal
from hoserkd.errors import StoreError, UsageError, reason_of

_LONGEST_ENTRY = 1 << 20
ANOTHER = "`hoserkd tune --study NAME` begins another study"
SQLITE_WAIT_S = 60.0
"""How long a worker waits for others to let an SQLite file go."""


def study_place(directory: Path, name: str, storage: str | None) -> str:
    """Return the file or URL of a study: what the settings say, else a journal in `directory`."""
    return storage or str(directory / f"{name}.log")


def open_storage(place: str, *, create: bool = True) -> BaseStorage:
    """Open a study's storage.

    Args:
        place: A journal file, or a URL as Optuna and SQLAlchemy know it; redis:// is a journal in
            Redis.
        create: Make a journal file that is not there yet.

    Raises:
        UsageError: the URL's driver is not installed, or no such thing is known.
        StoreError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" not in place:
        return _open_journal(Path(place).expanduser(), create)
    try:
        if place.startswith(("redis://", "rediss://")):
            importlib.import_module("redis")
            return JournalStorage(JournalRedisBackend(place))
        return optuna.storages.RDBStorage(
            place, engine_kwargs=_sqlite_patience() if place.startswith("sqlite") else None)
    except ImportError as error:
        raise UsageError(f"tune.storage {shown(place)}: its driver is missing: {error}",
                         hint="install the driver that the URL names") from error
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise StoreError(f"tune.storage {shown(place)} cannot be opened: {first}",
                         hint="see Optuna's page on storages for the forms of URLs") from error


def shown(place: str) -> str:
    """Return the place without a password."""
    parts = urlsplit(place)
    if parts.password is None:
        return place
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def _open_journal(path: Path, create: bool) -> BaseStorage:
    if not create and not path.is_file():
        raise StoreError(f"{path}: there is no such study",
                         hint="`hoserkd tune --study NAME` begins one")
    check_place(str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(StudyJournal(path))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: the study's journal cannot be read: {reason_of(error)}",
                         hint=ANOTHER) from error
    except Exception as error:
        # Optuna trusts the entries, and may raise anything at one of another form.
        raise StoreError(f"{path}: the study's journal cannot be read: Optuna does not know an "
                         f"entry of this form ({error!r})", hint=ANOTHER) from error


def check_place(place: str) -> None:
    """Refuse a file of the user's, to which a study would append.

    Raises:
        UsageError: it is there, and its first line is no journal entry.
    """
    path = Path(place).expanduser()
    if "://" in place or not path.exists():
        return
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_ENTRY)
        entry = parse_json(first) if first.strip() else {"op_code": 0}
    except (OSError, ValueError):
        entry = None
    if not (isinstance(entry, dict) and "op_code" in entry):
        raise UsageError(f"{path}: there already, and no journal of a study",
                         hint="name another file with --storage")


def _sqlite_patience() -> dict[str, Any]:
    return {"connect_args": {"timeout": SQLITE_WAIT_S}}
