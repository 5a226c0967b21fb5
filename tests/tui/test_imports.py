"""The dashboard starts without torch."""

import subprocess
import sys


def test_dashboard_loads_no_torch_and_no_engine_that_needs_it() -> None:
    code = ("import sys; import hoserkd.commands.tui, hoserkd.tui.app, hoserkd.tui.reading; "
            "sys.exit('torch' in sys.modules or 'optuna' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_dashboard_that_shows_the_runs_has_not_loaded_what_only_other_pages_need() -> None:
    code = ("import sys; import hoserkd.commands.tui, hoserkd.tui.app, hoserkd.tui.reading; "
            "found = {'numpy', 'pydantic', 'textual_plot', 'jaxtyping'} & sys.modules.keys(); "
            "print(sorted(found))")
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
