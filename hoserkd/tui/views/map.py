"""The page of the map: the city in braille, and generated trips to step through."""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from hoserkd.text import printable
from hoserkd.tui.braille import BLANK, View, cells, draw_segments, thickened
from hoserkd.tui.drawing import SERIES_STYLES
from hoserkd.tui.mapping import CityMap, MapData
from hoserkd.tui.snapshot import Snapshot
from hoserkd.tui.views.page import Wanted

ROADS = Style(color="grey46")
TRIP = Style(color=SERIES_STYLES[1], bold=True)
ENDS = Style(color="black", bgcolor=SERIES_STYLES[1], bold=True)
ZOOM = 1.5
PAN = 0.2
LEFT_BUTTON = 1
CHARACTER_ASPECT = 2.0
"""A character is about twice as high as wide."""


class MapCanvas(Widget):
    """Roads in dots, one trip over them in bolder dots with its ends marked O and D."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.city: CityMap | None = None
        self.trip: tuple[int, ...] = ()
        self._centre = (0.0, 0.0)
        self._degrees_high = 1.0
        self._strips: list[Strip] = []

    def fit(self, roads: tuple[int, ...] = ()) -> None:
        """Show all of the city, or all of some roads with air round them."""
        if self.city is None or not len(self.city.start):
            return
        start, end = self.city.segments(list(roads)) if roads else (self.city.start, self.city.end)
        points = np.concatenate([start, end])
        low, high = points.min(axis=0), points.max(axis=0)
        self._centre = (float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2)
        wide = (high[0] - low[0]) * self._shrink / max(self._shape, 1e-9)
        self._degrees_high = float(max(high[1] - low[1], wide, 1e-4)) * (1.3 if roads else 1.02)
        self.redraw()

    def zoom(self, factor: float) -> None:
        """Show less (above 1) or more."""
        self._degrees_high = float(np.clip(self._degrees_high / factor, 1e-4, 20.0))
        self.redraw()

    def pan(self, east: float, north: float) -> None:
        """Move by shares of the height shown."""
        x, y = self._centre
        self._centre = (x + east * self._degrees_high / self._shrink,
                        y + north * self._degrees_high)
        self.redraw()

    def redraw(self) -> None:
        """Draw all dots anew."""
        self._strips = self._draw() if self.city is not None and self.size.area else []
        self.refresh()

    def on_resize(self) -> None:
        """Draw for the new size, the same place in the middle."""
        self.redraw()

    def render_line(self, y: int) -> Strip:
        """Return one line of characters."""
        if y < len(self._strips):
            return self._strips[y].apply_style(self.rich_style)
        return Strip([Segment(" " * self.size.width, self.rich_style)])

    def get_view(self) -> View:
        """Return the part of the world that is shown."""
        x, y = self._centre
        half_high = self._degrees_high / 2
        half_wide = half_high * self._shape / self._shrink
        return View(x - half_wide, x + half_wide, y - half_high, y + half_high,
                    self.size.width, self.size.height)

    @property
    def _shrink(self) -> float:
        """A degree of longitude over a degree of latitude, here."""
        return max(float(np.cos(np.radians(self._centre[1]))), 0.05)

    @property
    def _shape(self) -> float:
        return self.size.width / max(self.size.height * CHARACTER_ASPECT, 1)

    def _draw(self) -> list[Strip]:
        assert self.city is not None
        view = self.get_view()
        base = draw_segments(view, self.city.start, self.city.end)
        start, end = self.city.segments(list(self.trip))
        trip = thickened(draw_segments(view, start, end))
        marks = self._marks(view, start, end)
        return [_line(row, base, trip, marks) for row in range(self.size.height)]

    def _marks(self, view: View, start: Float[np.ndarray, "n 2"], end: Float[np.ndarray, "n 2"]
               ) -> dict[tuple[int, int], str]:
        if not len(start):
            return {}
        places = view.to_dots(np.stack([start[0], end[-1]]))
        return {(int(y // 4), int(x // 2)): mark for (x, y), mark in
                zip(places, "OD", strict=True)}


def _line(row: int, base: Bool[np.ndarray, "h w"], trip: Bool[np.ndarray, "h w"],
          marks: dict[tuple[int, int], str]) -> Strip:
    """Return a line of characters as runs of one style."""
    rows = slice(4 * row, 4 * row + 4)
    both = cells(base[rows] | trip[rows])[0]
    on_trip = cells(trip[rows])[0] != BLANK
    segments: list[Segment] = []
    for column, point in enumerate(both):
        mark = marks.get((row, column))
        style = ENDS if mark else TRIP if on_trip[column] else ROADS
        text = mark or chr(int(point))
        if segments and segments[-1].style is style:
            segments[-1] = Segment(segments[-1].text + text, style)
        else:
            segments.append(Segment(text, style))
    return Strip(segments, len(both))


class MapView(Vertical):
    """The map of one run's city and generated trips."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("n", "step(1)", "Next trip"),
        ("p", "step(-1)", "Previous"),
        ("f", "fit_trip", "Fit trip"),
        ("r", "fit_city", "Whole city"),
        Binding("plus,equals_sign", "zoom(1)", "Zoom in", show=False),
        Binding("minus", "zoom(-1)", "Zoom out", show=False),
        Binding("left", "pan(-1, 0)", "West", show=False),
        Binding("right", "pan(1, 0)", "East", show=False),
        Binding("up", "pan(0, 1)", "North", show=False),
        Binding("down", "pan(0, -1)", "South", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.can_focus = True
        self._data: MapData | None = None
        self._trip = 0

    def compose(self) -> ComposeResult:
        """A headline over the map."""
        yield Static("", id="map-head")
        yield MapCanvas(id="map-canvas")

    @property
    def canvas(self) -> MapCanvas:
        """The map itself."""
        return self.query_one(MapCanvas)

    def focus_table(self) -> None:
        """Take the keyboard."""
        self.focus()

    def show(self, snapshot: Snapshot, wanted: Wanted) -> None:
        """Show the map of the chosen run; the place stays if the city does."""
        data = snapshot.map
        if data is self._data and data is not None:
            return
        before = self._data.city if self._data else None
        self._data = data
        if data is None:
            why = snapshot.map_missing or "choose a run of a prepared city (page 1, Enter)"
            self.query_one("#map-head", Static).update(Text(printable(f"no map: {why}")))
            # Else the roads of the run before would stand for this one's.
            self.canvas.city, self.canvas.trip = None, ()
            self.canvas.redraw()
            return
        self._trip = 0
        self.canvas.city = data.city
        self._choose()
        if data.city is not before:
            self.canvas.fit()
        else:
            self.canvas.redraw()

    def action_step(self, by: int) -> None:
        """Show another trip, moving there if it is out of sight."""
        if self._data is None or not self._data.trips:
            return
        self._trip = (self._trip + by) % len(self._data.trips)
        self._choose()
        if self._out_of_sight():
            self.canvas.fit(self.canvas.trip)
        else:
            self.canvas.redraw()

    def action_fit_trip(self) -> None:
        """Zoom to the trip."""
        self.canvas.fit(self.canvas.trip)

    def action_fit_city(self) -> None:
        """Show the whole city."""
        self.canvas.fit()

    def action_zoom(self, direction: int) -> None:
        """Zoom in or out."""
        self.canvas.zoom(ZOOM ** direction)

    def action_pan(self, east: int, north: int) -> None:
        """Move the map."""
        self.canvas.pan(PAN * east, PAN * north)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Pull the map along with the mouse while its button is held."""
        if event.button == LEFT_BUTTON and self.canvas.size.height:
            cells_high = self.canvas.size.height
            self.canvas.pan(-event.delta_x / CHARACTER_ASPECT / cells_high,
                            event.delta_y / cells_high)

    def on_mouse_scroll_up(self) -> None:
        """Zoom in by the wheel."""
        self.canvas.zoom(ZOOM)

    def on_mouse_scroll_down(self) -> None:
        """Zoom out by the wheel."""
        self.canvas.zoom(1 / ZOOM)

    def _out_of_sight(self) -> bool:
        assert self._data is not None
        start, end = self._data.city.segments(list(self.canvas.trip))
        view = self.canvas.get_view()
        dots = view.to_dots(np.concatenate([start, end]))
        return bool(((dots < 0) | (dots > (view.dots_wide, view.dots_high))).any())

    def _choose(self) -> None:
        assert self._data is not None
        data = self._data
        head = Text.assemble((printable(data.city.name), "bold"),
                             f"  {len(data.city.index):,} roads")
        if data.trips:
            trip = data.trips[self._trip]
            self.canvas.trip = trip.roads
            reached = "✓ reached" if trip.reached else f"✗ {trip.reason or 'not reached'}"
            head.append(f"  trip {self._trip + 1}/{len(data.trips)}: {len(trip.roads)} roads, "
                        f"{trip.departure}, {reached}, log p {trip.log_prob:.3g}")
            head.append(f"  {printable(data.source)}", style="dim")
        else:
            self.canvas.trip = ()
            head.append("  no generated trips: `hoserkd generate --run RUN`")
        self.query_one("#map-head", Static).update(head)
