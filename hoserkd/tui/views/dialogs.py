"""Small windows over a page: help, a question."""

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static


class HelpScreen(ModalScreen[None]):
    """All keys; any key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,q,question_mark,enter", "app.pop_screen", "Close"),
    ]

    def __init__(self, sections: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
        super().__init__()
        self._sections = sections

    def compose(self) -> ComposeResult:
        """One table of keys."""
        table = Table.grid(padding=(0, 2))
        for title, keys in self._sections:
            table.add_row(f"[b]{title}[/b]")
            for key, meaning in keys:
                table.add_row(f"  {key}", meaning)
        with VerticalScroll(id="help-box"):
            yield Static(table)


class ConfirmScreen(ModalScreen[bool]):
    """Asks yes or no; Escape means no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y,enter", "dismiss(True)", "Yes"),
        ("n,escape", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """The question and two buttons."""
        with Vertical(id="ask-box"):
            yield Static(self._question, markup=False)
            with Horizontal(id="ask-buttons"):
                yield Button("Yes (y)", variant="primary", compact=True, id="ask-yes")
                yield Button("No (n)", compact=True, id="ask-no")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Give the answer back."""
        self.dismiss(event.button.id == "ask-yes")


class AskScreen(ModalScreen[str | None]):
    """Asks for one line of text; Escape gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question = question
        self._value = value

    def compose(self) -> ComposeResult:
        """The question and a line for the answer."""
        with Vertical(id="ask-box"):
            yield Static(self._question, markup=False)
            yield Input(self._value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Give the answer back."""
        self.dismiss(event.value.strip())
