"""Small drawings for table cells: where a figure stands among floor and ceilings."""

from collections.abc import Sequence

from hoserkd.engine.metrics.statistics import Figure

WIDTH, HEIGHT, PAD = 150, 18, 7


def strip(
    runs: Sequence[Figure | None], floor: Figure | None, ceilings: Sequence[Figure | None]
) -> str:
    """Return an SVG of one line: floor a ring, ceilings crosses, runs dots with whiskers."""
    known = [f.value for f in (*runs, floor, *ceilings) if f is not None and f.value is not None]
    beside = [f for f in (floor, *ceilings) if f is not None and f.value is not None]
    if not beside or all(run is None or run.value is None for run in runs):
        return ""
    highs = [f.high for f in runs if f is not None and f.high is not None]
    low, high = min(known), max(*known, *highs)
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return round(PAD + (value - low) / span * (WIDTH - 2 * PAD), 1)

    middle = HEIGHT / 2
    parts = [f'<line class="axis" x1="{PAD}" x2="{WIDTH - PAD}" y1="{middle}" y2="{middle}"/>']
    for ceiling in ceilings:
        if ceiling is not None and ceiling.value is not None:
            c = x(ceiling.value)
            parts.append(f'<path class="cross" d="M{c - 3},{middle - 3}l6,6m0,-6l-6,6"/>')
    if floor is not None and floor.value is not None:
        parts.append(f'<circle class="ring" cx="{x(floor.value)}" cy="{middle}" r="4"/>')
    for index, run in enumerate(runs):
        if run is None or run.value is None:
            continue
        name = f"run{index % 6 + 1}"
        if run.low is not None and run.high is not None:
            left, right = x(max(run.low, low)), x(min(run.high, high))
            parts.append(f'<line class="whisker {name}" x1="{left}" x2="{right}" '
                         f'y1="{middle}" y2="{middle}"/>')
        parts.append(f'<circle class="dot {name}" cx="{x(run.value)}" cy="{middle}" r="3.4"/>')
    return (f'<svg class="strip" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" aria-hidden="true">{"".join(parts)}</svg>')
