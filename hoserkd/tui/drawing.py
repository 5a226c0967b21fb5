"""Small things drawn with characters: states, progress, bars. Nothing is told by colour alone."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from hoserkd.text import duration_text, printable

GREEN, BLUE, YELLOW, RED = "#3fa34d", "#3d8bd9", "#c29100", "#d9534f"
STATES = {
    "running": ("▶", GREEN),
    "finished": ("✓", BLUE),
    "stopped": ("■", YELLOW),
    "failed": ("✗", RED),
    "dead": ("†", RED),
    "complete": ("✓", BLUE),
    "pruned": ("✂", YELLOW),
    "waiting": ("…", YELLOW),
}
SERIES_STYLES = (BLUE, "#e0822f", GREEN, "#b86bd6", YELLOW, RED)
"""Colours of curves, readable on dark and on light ground; a letter on each curve says which."""
GROUND = "grey42"
"""Behind the empty part of a bar."""
SERIES_MARKS = "abcdef"
BLOCKS = " ▏▎▍▌▋▊▉█"


def state_text(status: str) -> Text:
    """Return a run's state as a sign and a word."""
    sign, style = STATES.get(status, ("?", "default"))
    return Text(f"{sign} {status}", style=style)


def bar(share: float, width: int) -> str:
    """Return a bar of `width` cells, filled to eighths of a cell."""
    eighths = round(max(0.0, min(share, 1.0)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(width)


def progress_text(share: float | None, width: int = 6) -> Text:
    """Return a bar and its percentage, or a dash."""
    if share is None:
        return Text("-")
    return Text.assemble((bar(share, width), f"{BLUE} on {GROUND}"), f" {share:4.0%}")


def figure(value: float | None) -> str:
    """Return a short figure, or a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def short_figure(value: float | None) -> str:
    """Return a figure of three digits, or a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def span(seconds: float | None) -> str:
    """Return a span of time, or a dash where there is none."""
    return "-" if seconds is None else duration_text(seconds)


def short_span(seconds: float | None) -> str:
    """Return a span of time in at most six characters: 0:42, 12:05, 3h07, 2d04h."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}" if hours else f"{minutes}:{rest:02d}"


def parts_of(timings_ms: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of a step; what a recorded whole holds beyond them is `other`."""
    parts = {name: value for name, value in timings_ms.items() if name != "step"}
    rest = timings_ms.get("step", 0.0) - sum(parts.values())
    return {**parts, "other": rest} if rest > 0 else parts


def timing_bars(timings_ms: Mapping[str, float], width: int) -> Text:
    """Return a step as one bar stacked of its parts, then a line a part: bar, ms, share."""
    timings_ms = parts_of(timings_ms)
    total = sum(timings_ms.values())
    if not total:
        return Text("no timings yet", style="dim")
    name_width = max(len(name) for name in timings_ms) + 3
    bar_width = max(width - name_width - 17, 4)
    whole = f"{figure(total):>8} ms step"
    lines = [stacked_bar(list(timings_ms.values()), name_width + bar_width).append(whole)]
    for index, (name, value) in enumerate(timings_ms.items()):
        share = value / total
        lines.append(Text.assemble(
            f"{SERIES_MARKS[index % len(SERIES_MARKS)]} {name}".ljust(name_width),
            (bar(share, bar_width), f"{SERIES_STYLES[index % len(SERIES_STYLES)]} on {GROUND}"),
            f"{figure(value):>8} ms {share:4.0%}"))
    return Text("\n").join(lines)


def stacked_bar(shares: Sequence[float], width: int) -> Text:
    """Return one bar cut into parts, each with its letter, in proportion to `shares`."""
    total = sum(shares)
    text = Text()
    drawn = 0
    reached = 0.0
    for index, share in enumerate(shares):
        reached += share
        upto = round(width * reached / total) if total else 0
        cells = upto - drawn
        drawn = upto
        letter = SERIES_MARKS[index % len(SERIES_MARKS)]
        text.append(letter.center(cells)[:cells],
                    style=f"black on {SERIES_STYLES[index % len(SERIES_STYLES)]}")
    return text


def key_values(pairs: Sequence[tuple[str, str]]) -> Text:
    """Return `key value` pairs in a row, the keys dim."""
    text = Text()
    for key, value in pairs:
        if text:
            text.append("  ")
        text.append(f"{key} ", style="dim")
        text.append(printable(value))
    return text


def clipped(text: str, width: int) -> str:
    """Return `text` in at most `width` columns, its end given up for an ellipsis."""
    return text if len(text) <= width else text[:width - 1] + "…"
