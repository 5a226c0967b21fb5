"""Closed streams, readers that leave and narrow encodings: no command minds any of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoserkd.cli import command_names
from hoserkd.store.runs import RunStore

TRIALS = """
import gc, io, json, os, sys
from hoserkd.cli import build_app, main
import duckdb, textual.app, typer.main, typer.rich_utils  # once, not in every child
import hoserkd.console, hoserkd.settings, hoserkd.store.runs, hoserkd.tui.app
typer.main.get_command(build_app())
gc.freeze()

def close(*numbers):
    for number in numbers:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)

def leave(*numbers):
    for number in numbers:
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, number)

def narrow(encoding):
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding, "strict")

SETTINGS = {
    "plain": lambda: None,
    "closed": lambda: close(0, 1, 2),
    "reader gone": lambda: leave(1),
    "nobody there": lambda: leave(1, 2),
    "ascii": lambda: narrow("ascii"),
}

words, setting, folder = [], "", ""
for number, (words, setting) in enumerate(json.load(sys.stdin)):
    folder = f"{sys.argv[1]}/{number}"
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit(0)
for target, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT), target)
sys.argv = ["hoserkd", *words]
SETTINGS[setting]()
sys.exit(main())
"""
SETTINGS = ("closed", "reader gone", "nobody there", "ascii")
HELP_SETTINGS = ("closed", "nobody there")
"""For the help of every command, in turns."""
ANSWERS = (
    ["--version"], ["nonsense"], ["runs", "list", "--json"], ["runs", "show", "first"],
    ["profiles", "show", "smoke"], ["train", "--show-config"], ["generate", "--num", "0"], ["tui"],
)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Any]:
    """Return code, stdout and stderr of every command line in every setting."""
    folder = tmp_path_factory.mktemp("streams")
    with RunStore(folder / "store").create_run("train", "demo", "first") as run:
        run.evaluation({"straße": 1.0, "東京": 2.0}, label="größe")
    places = ["--store", str(folder / "store"), "--data-dir", str(folder)]
    trials = [(line, setting) for line in ANSWERS for setting in ("plain", *SETTINGS)]
    trials += [([name, "--help"], HELP_SETTINGS[number % 2])
               for number, name in enumerate(command_names())]
    lines = json.dumps([(line + places * (line[0] != "--version"), how) for line, how in trials])
    done = subprocess.run([sys.executable, "-c", TRIALS, str(folder)], input=lines,
                          capture_output=True, text=True, check=True)
    codes = [int(word) for word in done.stdout.split()]
    said = [[Path(f"{folder}/{n}.{name}").read_text("latin-1") for name in ("out", "err")]
            for n in range(len(trials))]
    return {(" ".join(line), how): (code, *texts)
            for (line, how), code, texts in zip(trials, codes, said, strict=True)}


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_command_minds_its_streams(tried: dict[tuple[str, str], Any], setting: str) -> None:
    for (line, tried_setting), (code, _, err) in tried.items():
        if tried_setting == setting:
            plain = tried.get((line, "plain"), (0,))[0]
            assert code == plain, f"{line}, {setting}: {err}"
            assert "Traceback" not in err, f"{line}, {setting}"
            assert "Exception ignored" not in err, f"{line}, {setting}"


def test_what_an_encoding_lacks_is_replaced(tried: dict[tuple[str, str], Any]) -> None:
    shown = tried["runs show first", "ascii"][1]
    assert "gr??e" in shown
    listed = json.loads(tried["runs list --json", "ascii"][1])
    assert listed == json.loads(tried["runs list --json", "plain"][1])


def test_a_full_disk_behind_stdout_is_an_error_of_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "hoserkd", "--version"], stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: no space left on device\n")
    assert "Traceback" not in done.stderr


def test_a_file_opened_later_never_gets_the_number_of_a_closed_stream() -> None:
    script = ("import sys\nfrom hoserkd.streams import prepare_streams\nprepare_streams()\n"
              "with open(sys.argv[1]) as file: sys.exit(file.fileno())")
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" "$0" <&- >&- 2>&-', sys.executable, script],
                          check=False)
    assert done.returncode > 2
