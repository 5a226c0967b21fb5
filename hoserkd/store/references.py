"""How people point at a run: by name, by id, by the start of an id, or as the latest."""

from collections.abc import Sequence
from difflib import get_close_matches

from hoserkd.engine import names
from hoserkd.errors import StoreError, UsageError

LATEST = "latest"


class UnknownRunError(StoreError):
    """No run answers to what was asked for."""

    exit_code = 2


def resolve_reference(
    reference: str, known: Sequence[tuple[str, str]], kind: str | None = None
) -> str:
    """Return the id that `reference` means among (id, name) pairs, the newest first.

    Raises:
        UnknownRunError: none, or a start of several ids.
    """
    of_kind = f" of kind {kind}" if kind else ""
    if reference == LATEST:
        if not known:
            raise UnknownRunError(f"the store holds no run{of_kind} yet",
                                  hint="`hoserkd demo` makes some")
        return known[0][0]
    for run_id, name in known:
        if reference in (run_id, name):
            return run_id
    starting = [run_id for run_id, _ in known if reference and run_id.startswith(reference)]
    if len(starting) == 1:
        return starting[0]
    if starting:
        raise UnknownRunError(f"{reference!r} is the start of {len(starting)} runs: "
                              f"{', '.join(starting[:4])}", hint="give more of the id")
    near = get_close_matches(reference, [word for pair in known for word in pair], n=3)
    raise UnknownRunError(
        f"no run{of_kind} is called {reference!r}"
        + (f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""),
        hint="`hoserkd runs list` shows all")


def check_name(name: str) -> str:
    """Return `name` if it can be a run's name or tag.

    Raises:
        UsageError: it cannot.
    """
    if name == LATEST:
        raise UsageError(f"{name!r} cannot be a name: it means the newest run")
    return names.check_name(name)
