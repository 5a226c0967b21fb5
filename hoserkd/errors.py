"""The mistakes that a user can make or meet, each shown as one line with a hint."""


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
