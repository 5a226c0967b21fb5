"""Pictures of the dashboard, made without a terminal."""

import asyncio
from collections.abc import Sequence

from hoserkd.tui.app import Dashboard


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
        await pilot.pause(0.1)
        return app.export_screenshot()
