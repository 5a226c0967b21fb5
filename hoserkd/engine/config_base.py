"""What every group of settings is."""

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from hoserkd.engine.names import LONGEST, checked_name

COLDEST, HOTTEST = 0.01, 1000.0
"""Temperatures: colder and logits overflow, hotter and nothing is left of their differences."""

# Bounds of the numbers in the settings. They stand far above any sensible value, and keep a slip of
# the keyboard or an untrusted profile from ending in an overflow or in gigabytes.
MAX_SEED = 2**63 - 1
"""The largest seed that torch, numpy and the run store all hold."""
MAX_COUNT = 1_000_000
"""Of epochs, passes, expansions of a search and other things that are counted one by one."""
MAX_STEPS = 10**9
"""Of optimiser steps: the largest published training has under a million."""
MAX_TRIPS = 10_000_000
"""Of trips generated or judged at once: fifteen times Beijing's training trips."""
MAX_BATCH = 65_536
"""Trips, contexts or searches of one batch: with 29 roads a trip, two million steps."""
MAX_RATE = 10.0
"""Of learning rate and weight decay: beyond it the first update overflows."""
MAX_WEIGHT = 1e6
"""Of a term of the loss, a norm or another factor."""
MAX_METRES = 1e8
"""Of a distance: twice round the Earth."""
MAX_SECONDS = 1e9
"""Of a time limit: thirty years."""
MAX_PARAMETERS = 2 * 10**9
"""Of a model: with gradients and the optimiser's state it would take 32 GB."""


def named(longest: int = LONGEST) -> AfterValidator:
    """Return what makes a text setting a name, for `Annotated`."""
    return AfterValidator(lambda name: checked_name(name, longest))


def field_findings(error: ValidationError, whole: str = "settings") -> list[str]:
    """Return what is wrong with a section's values, in a line each field.

    A field that may be a word or a number fails once for each form; its forms share a line.

    Args:
        whole: What to call the section where fields contradict each other.
    """
    told: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        name = str(item["loc"][0]) if item["loc"] else whole
        message = item["msg"].removeprefix("Value error, ")
        told.setdefault(name, []).append(message[:1].lower() + message[1:])
    return [f"{name}: {' or '.join(dict.fromkeys(messages))}".replace(
        " or input should be ", " or ") for name, messages in told.items()]


class Section(BaseModel):
    """A group of settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True,
                              allow_inf_nan=False)
