"""Wall clocks of a city as other programs read them: with the offset from UTC, or with none.

Trips carry seconds of the wall clock written in their source, without a zone. Where the city's
zone is known (`city.timezone`), files for other programs hold instants: each trip keeps the
offset that held at its departure, so that a trip over a change of the clocks neither jumps nor
runs back. Where it is not known, they hold wall clocks without a zone. Only files in the HOSER
format end their wall clocks in Z, as that format does.
"""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from jaxtyping import Int64

from hoserkd.errors import DataError

MINUTE_S = 60


def find_zone(name: str) -> ZoneInfo:
    """Return the zone of an IANA name such as `Europe/Lisbon`.

    Raises:
        ValueError: there is none of that name, or no database of time zones on this machine.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}: expected an IANA name such as "
                         "Europe/Lisbon (where none is found, `pip install tzdata`)") from error


def utc_offsets_s(
    timezone: str | None, wall_s: Int64[np.ndarray, " N"]
) -> Int64[np.ndarray, " N"] | None:
    """Return the offset from UTC, in seconds, of a zone's clocks at each time that they show.

    A time that a change of the clocks repeats or leaves out has the offset from before it.
    Returns None where the zone is not known.

    Raises:
        DataError: there is no such zone.
    """
    if timezone is None:
        return None
    try:
        zone = find_zone(timezone)
    except ValueError as error:
        raise DataError(f"city.timezone: {error}") from error
    times, place = np.unique(wall_s, return_inverse=True)
    offsets = [_offset_s(zone, second) for second in times.tolist()]
    return np.array(offsets, np.int64)[place.reshape(-1)]


def _offset_s(zone: ZoneInfo, wall_s: int) -> int:
    shown = datetime.fromtimestamp(wall_s, UTC).replace(tzinfo=zone)
    away = shown.utcoffset()
    # ISO 8601 knows whole minutes; before 1900 some towns had odd seconds.
    return 0 if away is None else round(away.total_seconds() / MINUTE_S) * MINUTE_S


def instants(
    wall_s: Int64[np.ndarray, " N"], offset_s: Int64[np.ndarray, " N"] | None
) -> Int64[np.ndarray, " N"]:
    """Return seconds since 1970 in UTC; the wall clock's own where the zone is not known."""
    return wall_s if offset_s is None else wall_s - offset_s


def iso_times(
    wall_s: Int64[np.ndarray, " N"], offset_s: Int64[np.ndarray, " N"] | None
) -> list[str]:
    """Return times such as 2015-11-05T08:30:00+01:00; without an offset where it is not known."""
    shown = np.datetime_as_string(wall_s.astype("datetime64[s]")).tolist()
    if offset_s is None:
        return list(shown)
    ends = {int(away): _offset_text(int(away)) for away in np.unique(offset_s)}
    return [time + ends[away] for time, away in zip(shown, offset_s.tolist(), strict=True)]


def _offset_text(offset_s: int) -> str:
    hours, minutes = divmod(abs(offset_s) // MINUTE_S, 60)
    return f"{'-' if offset_s < 0 else '+'}{hours:02d}:{minutes:02d}"


def arrow_type(timezone: str | None) -> Any:
    """Return Arrow's type of instants in a zone, or of wall clocks without one."""
    import pyarrow as pa

    return pa.timestamp("s", tz=timezone)
