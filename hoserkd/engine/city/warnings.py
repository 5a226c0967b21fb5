"""What columns say about each other: warnings of a preparation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hoserkd.errors import DataError


@dataclass(frozen=True, slots=True)
class ColumnWarning:
    """Columns that are each readable and contradict one another."""

    check: str
    """Which check: a stable name."""
    count: int
    of: int
    """How many were looked at."""
    what: str
    """How the sentence goes on after the count: "roads are ..."."""
    example: str
    advice: str = ""
    """What may be the cause, or what to do: a sentence of its own."""

    @property
    def message(self) -> str:
        """The warning as it is told."""
        said = f"{self.count:,} of {self.of:,} {self.what} (for instance {self.example})"
        return f"{said}. {self.advice}" if self.advice else said

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return {**asdict(self), "message": self.message}


def refuse_if_any(messages: Sequence[str]) -> None:
    """Refuse what `--strict` does not allow.

    Raises:
        DataError: there is a warning; the message holds them all.
    """
    if messages:
        raise DataError(
            "\n".join(messages),
            hint="--strict makes warnings errors: mend the files, or prepare without it")
