"""A real dashboard on a terminal of its own, for the benchmarks that watch it or watch with it."""

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
import threading
import time
from pathlib import Path

COLUMNS, ROWS = 160, 48
PAUSE_S = 0.05
"""Output that comes closer together than this is one redraw."""


DEAF = """
import signal, sys
take = signal.signal
signal.signal = lambda number, handler: number != signal.SIGCONT and take(number, handler)
from hoserkd.cli import main
sys.exit(main())
"""
"""`hoserkd` without Textual's answer to SIGCONT, which sets the terminal up anew after Ctrl-Z, and
once too often after `halt`."""


class Watcher:
    """A process of `hoserkd tui`, and what it has written to its terminal."""

    def __init__(self, store: Path, page: str, run: str) -> None:
        self.began = time.monotonic()
        self.redraws = 0
        self.written = bytearray()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [
                sys.executable, "-c", DEAF, "tui", "--store", str(store), "--data-dir",
                str(store.parent), "--screen", page, "--run", run])
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self._drain = threading.Thread(target=self._read, daemon=True)
        self._drain.start()

    def wait_for(self, text: str, patience_s: float) -> tuple[float, float]:
        """Return (seconds, processor seconds) from the start until `text` was on the terminal.

        Raises:
            TimeoutError: it never was.
        """
        wanted = text.encode()
        while time.monotonic() - self.began < patience_s:
            if wanted in self.written:
                return time.monotonic() - self.began, self.processor_s()
            time.sleep(0.005)
        raise TimeoutError(f"{text} has not been shown: {bytes(self.written[-2000:])!r}")

    def processor_s(self) -> float:
        """Return the processor seconds that the dashboard has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def works(self) -> bool:
        """Tell whether the dashboard is alive."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._terminal, keys.encode())

    def halt(self) -> None:
        """Stop the process where it stands, until `go`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def quit(self) -> int:
        """Press q and return the exit code."""
        self.press("q")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _read(self) -> None:
        last = 0.0
        try:
            while data := os.read(self._terminal, 1 << 16):
                now = time.monotonic()
                self.redraws += now - last > PAUSE_S
                last = now
                self.written += data
        except OSError:
            return  # the dashboard has left its terminal
