"""Pictures of the dashboard, made without a terminal."""

import asyncio
from collections.abc import Sequence

from hoserkd.tui.app import Dashboard


def screenshot(app: Dashboard, width: int, height: int, keys: Sequence[str] = ()) -> str:
    """Return the dashboard as SVG text, `width` by `height` characters, after pressing `keys`."""
    return asyncio.run(_screenshot(app, width, height, keys))


async def _screenshot(app: Dashboard, width: int, height: int, keys: Sequence[str]) -> str:
    async with app.run_test(size=(width, height)) as pilot:
        for key in (None, *keys):
            if key is not None:
                await pilot.press(key)
            await app.workers.wait_for_complete()
            await pilot.pause(0.2)
        return app.export_screenshot()
