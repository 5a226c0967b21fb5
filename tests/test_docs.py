"""Every command line in the documents runs, on cities and models of the smallest size."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "CITY__ZONES": "6",
    "STUDENT__HIDDEN_DIM": "16", "STUDENT__ROAD_ID_DIM": "8", "STUDENT__ATTRIBUTE_DIM": "2",
    "STUDENT__LAYERS": "1",
    "TEACHER__N_LAYER": "1", "TEACHER__N_HEAD": "2", "TEACHER__N_EMBD": "16",
    "TEACHER__EPOCHS": "1", "TEACHER__BATCH_TOKENS": "1024", "TEACHER__BLOCK_SIZE": "128",
    "TRAIN__EPOCHS": "1", "TRAIN__BATCH_SIZE": "16", "TRAIN__ACCUMULATION": "1",
    "GENERATE__NUM": "6", "GENERATE__MAX_STEPS": "200", "EVALUATE__BOOTSTRAP": "20",
    "TUNE__TRIALS": "1", "TUNE__EPOCHS": "1", "TUNE__MIN_RESOURCE": "1",
    "STUDY__STEPS": "2",
    "TUNE__FINAL_EPOCHS": "1", "TUNE__FINAL_SEEDS": "[]",
}
"""What the environment sets, so that the commands themselves run as they are written."""


def code_blocks(document: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text("utf-8"), re.M | re.S)


def command_lines(document: Path) -> list[str]:
    """Return the hoserkd command lines in a document's shell blocks, in order."""
    lines = "\n".join(code_blocks(document, "sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("hoserkd ")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of HOSER files, 150 roads and 120 trips."""
    from hoserkd.engine.city.synthetic import make_demo_source

    folder = tmp_path_factory.mktemp("source")
    make_demo_source(folder, 150, 120, 0)
    return folder


@pytest.fixture
def place(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that is its own home; all sizes are small."""
    for name, value in SMALL.items():
        monkeypatch.setenv(f"HOSERKD_{name}", value)
    monkeypatch.setenv("HOSERKD_HOME", str(tmp_path / "work"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_line(run_cli: Callable[..., Any], line: str) -> Any:
    """Run one documented line and fail with its own words."""
    words = [str(Path(word).expanduser()) if word.startswith("~") else word
             for word in shlex.split(line, comments=True)]
    answer = run_cli(*words[1:])
    assert answer.exit_code == 0, f"{line}\n{answer.stdout}\n{answer.stderr}"
    return answer


def test_readme_nine_commands_run_as_written(
    place: Path, source: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "data").mkdir()
    (place / "data" / "Beijing").symlink_to(source)
    lines = command_lines(ROOT / "README.md")
    assert len(lines) == 9
    for line in lines:
        run_line(run_cli, line)
    assert (place / "distilled.tar.zst").is_file()


def test_tutorial_commands_run_as_written(
    place: Path, source: Path, run_cli: Callable[..., Any]
) -> None:
    (place / "files").symlink_to(source)
    (place / "lmtad").symlink_to(ROOT / "tests/data/lmtad/plain")
    tutorial = ROOT / "docs/tutorial.md"
    (place / "my-city.yaml").write_text(code_blocks(tutorial, "yaml")[0], encoding="utf-8")
    for line in command_lines(tutorial):
        if "queries.csv" in line:
            _ask(place)
        run_line(run_cli, line)
    assert (place / "report" / "report.html").is_file()
    assert len((place / "trips.csv").read_text().splitlines()) == 3


def test_commands_page_lines_run_as_written(place: Path, run_cli: Callable[..., Any]) -> None:
    lines = command_lines(ROOT / "docs/commands.md")
    assert {line.split()[1] for line in lines} >= {"prepare", "train", "tune", "study", "runs",
                                               "tui"}
    for line in lines:
        run_line(run_cli, line)


def test_study_page_lines_run_as_written(place: Path, run_cli: Callable[..., Any]) -> None:
    lines = command_lines(ROOT / "docs/study.md")
    answer = [run_line(run_cli, line) for line in lines][-1]
    for word in ("distilled", "All test trips", "The teacher of distilled alone", "study.svg"):
        assert word in answer.stdout


def _ask(place: Path) -> None:
    """Write the queries of two generated trips as a user's own."""
    generated = next((place / "work/store/runs").glob("*/generated/*.csv"))
    lines = [",".join(line.split(",")[:3]) for line in generated.read_text().splitlines()]
    (place / "queries.csv").write_text("\n".join(lines[:3]) + "\n")


def test_data_format_smallest_city_is_prepared_as_written(
    place: Path, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOSERKD_CITY__ZONES")
    document = ROOT / "docs/data-format.md"
    for name, text in re.findall(r"^`(tiny/\S+)`\n```csv\n(.*?)^```", document.read_text("utf-8"),
                                 re.M | re.S):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    answers = [run_line(run_cli, line) for line in command_lines(document)]
    assert re.search(r"roads +5\b", answers[0].stdout)
    assert not (place / "tiny-city" / "rejected.csv").exists() or (
        "rejected" not in answers[0].stderr)


def test_method_worked_example_prints_the_figures_of_its_table(
    capsys: pytest.CaptureFixture[str]
) -> None:
    document = ROOT / "docs/method.md"
    exec(compile(code_blocks(document, "python")[0], "method.md", "exec"), {})
    printed = capsys.readouterr().out
    for figure in ("0.7687", "0.3581", "0.9163", "0.9669", "0.7718", "0.4301"):
        assert figure in printed
        assert figure in document.read_text("utf-8")


def test_documents_link_only_to_what_exists() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"
