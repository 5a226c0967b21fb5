"""The mistakes that a user can make or meet, each shown as one line with a hint."""

import errno


class HoserkdError(Exception):
    """Anything a user can mend. `message` says what and where, `hint` what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(HoserkdError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class ConfigError(HoserkdError):
    """A profile, an environment variable or a `--set` holds a wrong key or value."""

    exit_code = 2


class DataError(HoserkdError):
    """A city, a trip file or an OD file is missing, unreadable or contradicts itself."""

    exit_code = 2


class TeacherError(HoserkdError):
    """A teacher checkpoint or export is unreadable, contradicts itself or does not fit the city."""

    exit_code = 2


class CheckpointError(HoserkdError):
    """A student checkpoint is unreadable or belongs to another city, model or convention."""

    exit_code = 2


class BundleError(HoserkdError):
    """A bundle is damaged, unsafe or not a bundle."""

    exit_code = 2


class StoreError(HoserkdError):
    """The run store cannot be read or written, or holds no such run."""


class DivergenceError(HoserkdError):
    """Training met a loss or gradient that is not a number; names the last good checkpoint."""


class InterruptedRunError(HoserkdError):
    """The user asked to stop; the state that resumes has been saved."""

    exit_code = 130


class RefusedError(HoserkdError):
    """The disk or the system refused: full, read-only, forbidden, gone."""


PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EINTR)
"""What keeps a file from being read though nothing is wrong with it."""
_NO_ROOM = "make room; what was saved before is whole, and the work can go on from it"
_NOT_ALLOWED = ("let this user write there, or name other folders with --store, --data-dir or "
                "--output")
_HINTS = {
    errno.ENOSPC: _NO_ROOM, errno.EDQUOT: _NO_ROOM, errno.EFBIG: _NO_ROOM,
    errno.EACCES: _NOT_ALLOWED, errno.EPERM: _NOT_ALLOWED, errno.EROFS: _NOT_ALLOWED,
    errno.ENOENT: "a file went away while it was needed; the same command makes or names it again",
    errno.EIO: "the disk does not answer as it should; what was saved before is whole",
    errno.EMFILE: "more files are open than `ulimit -n` allows: raise it",
}


def refused_error(error: OSError) -> RefusedError:
    """Return what the system refused as one line: where, what, and what to do."""
    what = (error.strerror or str(error) or type(error).__name__).lower()
    where = error.filename if error.filename2 is None else error.filename2
    return RefusedError(what if where is None else f"{where}: {what}",
                       hint=_HINTS.get(error.errno or 0))


def describe_error(error: BaseException) -> str:
    """Return what a record says about why something ended."""
    if isinstance(error, OSError):
        error = refused_error(error)
    return error.message if isinstance(error, HoserkdError) else repr(error)


def reason_of(error: BaseException) -> str:
    """Return why a file cannot be read, for a message that names the file itself."""
    if isinstance(error, OSError):
        return (error.strerror or str(error) or type(error).__name__).lower()
    return str(error) or type(error).__name__
