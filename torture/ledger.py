"""What was tried and what was survived: one JSON line a case on stdout, a table at the end."""

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

MOST_SHOWN = 20


@dataclass(slots=True)
class Tally:
    """The faults of one case."""

    kind: str
    case: str
    faults: int = 0
    failures: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def survived(self) -> int:
        """Return how many faults left nothing wrong."""
        return self.faults - len(self.failures)

    def judge(self, fault: str, wrong: list[str]) -> None:
        """Count one fault, and what it left wrong."""
        self.faults += 1
        if wrong:
            self.failures.append(f"{fault}: {'; '.join(wrong[:3])}")
            print(f"  {self.kind} {self.case}: {self.failures[-1]}", file=sys.stderr, flush=True)


class Ledger:
    """All cases of one call."""

    def __init__(self) -> None:
        self._tallies: list[Tally] = []

    @property
    def failed(self) -> bool:
        """Whether any fault left something wrong."""
        return any(tally.failures for tally in self._tallies)

    def enter(self, tally: Tally) -> None:
        """Print a finished case."""
        self._tallies.append(tally)
        print(json.dumps({
            "torture": tally.kind, "case": tally.case, "faults": tally.faults,
            "survived": tally.survived(), **tally.more,
            "seconds": round(time.monotonic() - tally.began, 1),
            **({"failures": tally.failures[:MOST_SHOWN]} if tally.failures else {}),
        }), flush=True)

    def close(self) -> None:
        """Print the table on stderr."""
        rows = [("what", "case", "faults", "survived")] + [
            (t.kind, t.case, str(t.faults), str(t.survived())) for t in self._tallies]
        rows.append(("all", "", str(sum(t.faults for t in self._tallies)),
                     str(sum(t.survived() for t in self._tallies))))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip(), file=sys.stderr)
