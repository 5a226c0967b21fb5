"""Pictures of the dashboard, made without a terminal."""

import asyncio
from collections.abc import Sequence

from hoserkd.tui.app import Dashboard

SETTLING_S = 0.2
MOST_LOOKS = 20


def screenshot(app: Dashboard, width: int, height: int, keys: Sequence[str] = ()) -> str:
    """Return the dashboard as SVG text, `width` by `height` characters, after pressing `keys`."""
    return asyncio.run(_screenshot(app, width, height, keys))


async def _screenshot(app: Dashboard, width: int, height: int, keys: Sequence[str]) -> str:
    async with app.run_test(size=(width, height)) as pilot:
        while not app.taken:
            await pilot.pause(0.05)
        for key in keys:
            await pilot.press(key)
        app.read()
        while app.reading:
            await pilot.pause(0.05)
        # What has the focus decides the keys shown below, and both settle a little later.
        shown, before = app.export_screenshot(), ""
        for _ in range(MOST_LOOKS):
            if shown == before:
                break
            before = shown
            await pilot.pause(SETTLING_S)
            await pilot.pause()
            shown = app.export_screenshot()
        return shown
