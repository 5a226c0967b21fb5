"""The window in which a run is started."""

import shlex
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Select, Static

from hoserkd.tui.launching import COMMANDS, Launch, launch_words


class LaunchScreen(ModalScreen[Launch | None]):
    """Asks for command, profile, name and overrides, and shows the command line."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "Cancel")]

    def __init__(self, profiles: Sequence[str], profile: str,
                 refusal: Callable[[Launch], str | None]) -> None:
        super().__init__()
        self._refusal = refusal
        self._profiles = list(profiles)
        self._profile = profile if profile in self._profiles else self._profiles[0]

    def compose(self) -> ComposeResult:
        """Four questions, the line, two buttons."""
        with Vertical(id="launch-box"):
            yield Label("Start a run: it goes on when the dashboard is closed")
            yield Select([(name, name) for name in COMMANDS], value=next(iter(COMMANDS)),
                         allow_blank=False, compact=True, id="launch-command")
            yield Select([(name, name) for name in self._profiles], value=self._profile,
                         allow_blank=False, compact=True, id="launch-profile")
            yield Input(placeholder="name (may be left empty)", compact=True, id="launch-name")
            yield Input(placeholder="settings: train.epochs=3 distill.temperature=2",
                        compact=True, id="launch-overrides")
            yield Static("", id="launch-line")
            with Horizontal(id="launch-buttons"):
                yield Button("Start", variant="primary", compact=True, id="launch-start")
                yield Button("Cancel", compact=True, id="launch-cancel")

    def on_mount(self) -> None:
        """Show the command line at once."""
        self._preview()

    @property
    def launch(self) -> Launch:
        """What the answers say."""
        return Launch(str(self.query_one("#launch-command", Select).value),
                      str(self.query_one("#launch-profile", Select).value),
                      self.query_one("#launch-name", Input).value.strip(),
                      self.query_one("#launch-overrides", Input).value)

    def on_select_changed(self) -> None:
        """Show the command line anew."""
        self._preview()

    def on_input_changed(self) -> None:
        """Show the command line anew."""
        self._preview()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Start, or leave."""
        self.dismiss(self.launch if event.button.id == "launch-start" else None)

    def _preview(self) -> None:
        line, start = self.query_one("#launch-line", Static), self.query_one("#launch-start")
        refusal = self._refusal(self.launch)
        line.update(Text(f"✗ {refusal}" if refusal is not None
                         else f"$ {shlex.join(launch_words(self.launch))}"))
        start.disabled = refusal is not None
