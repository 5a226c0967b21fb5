"""The JSON members of bundles, as the commands that use a bundle need them."""

from collections.abc import Mapping
from typing import Any

from hoserkd.engine.bounded_json import parse_json

TAKEN = ("seed", "generate", "evaluate")
"""Sections that a bundle's settings may set: a file from outside says nothing of this machine."""


def document_fault(data: bytearray, about: Mapping[str, Any] | None) -> str | None:
    """Return what would keep a command from reading a JSON member; None: nothing.

    Args:
        about: For the settings of a model, what the manifest says of the bundle.
    """
    try:
        found = parse_json(bytes(data), non_finite=True)
        if about is not None:
            model_settings(about, found)
    except ValueError as error:
        return str(error)
    return None


def model_settings(about: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """Return those settings of a bundle's run that decide its answers, with its city's name.

    Args:
        about: What the manifest says of the bundle.
        settings: What `settings.json` holds.

    Raises:
        ValueError: they are of another form, or no city is named.
    """
    if not isinstance(settings, dict):
        raise ValueError("it holds no settings")
    city = about.get("city")
    if not isinstance(city, dict) or not all(
            isinstance(city.get(key), str) for key in ("name", "sha256")):
        raise ValueError("the manifest does not say which city they are for")
    values = {name: settings[name] for name in TAKEN if name in settings}
    for name, value in values.items():
        if name != "seed" and not isinstance(value, dict):
            raise ValueError(f"{name} is no section of settings")
    return {**values, "city": {"name": city["name"]}}
