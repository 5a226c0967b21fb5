"""The dashboard starts without torch."""

import subprocess
import sys


def test_dashboard_loads_no_torch_and_no_engine_that_needs_it() -> None:
    code = ("import sys; import hoserkd.commands.tui, hoserkd.tui.app, hoserkd.tui.reading; "
            "sys.exit('torch' in sys.modules or 'optuna' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
