"""Every command line in the documents runs, on cities and models of the smallest size."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recorded_trips import holders_of, holders_of_recorded_trips

from hoserkd.engine.city.storage import load_city

ROOT = Path(__file__).resolve().parents[1]
HELP = ROOT / "tests/data/help"
SMALL = {
    "CITY__ZONES": "6", "CITY__DEMO_ROADS": "150", "CITY__DEMO_TRIPS": "120",
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
RUN = ("README.md", "docs/commands.md", "docs/compatibility.md", "docs/dashboard.md",
       "docs/data-format.md", "docs/deploy.md", "docs/settings.md", "docs/store.md",
       "docs/study.md", "docs/tuning.md", "docs/tutorial.md")
"""Pages whose every command line is run: here, and `docs/deploy.md` in `commands/test_demo.py`.
Those of `docs/tuning.md`, which take hours, are run with `--show-config`, and the dashboard draws a
picture of what it would show in a terminal."""
PLACEHOLDERS = re.compile(r"^(?:[A-Z]+|\.\.\.)$")


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


def work_in(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Make a folder the working folder, the home and the home of hoserkd; all sizes are small."""
    for name, value in SMALL.items():
        patch.setenv(f"HOSERKD_{name}", value)
    patch.setenv("HOSERKD_HOME", str(folder / "work"))
    patch.setenv("HOME", str(folder))
    patch.chdir(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    return work_in(tmp_path, monkeypatch)


def save_porto_checkpoint(path: Path) -> None:
    """Write a small teacher as LM-TAD's trainer does, with the vocabulary of public Porto."""
    import torch

    from hoserkd.engine.teacher.lmtad import LMTAD, LMTADDimensions

    pad = 51 * 158 + 158 + 1
    model = LMTAD(LMTADDimensions(pad + 3, 24, 1, 2, 4))
    config = {**model.dimensions.to_json(), "pad_token": pad, "integer_poe": False}
    path.parent.mkdir()
    torch.save({"model": dict(model.state_dict()), "model_config": config,
                "dataset_config": {"grip_size": (51, 158)}}, path)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the lines of the commands page have run, for the pages that go on."""
    from hoserkd.cli import main

    folder = tmp_path_factory.mktemp("worked")
    save_porto_checkpoint(folder / "lmtad" / "ckpt.pt")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        for line in command_lines(ROOT / "docs/commands.md"):
            assert main(shlex.split(line)[1:]) == 0, line
    return folder


@pytest.fixture
def going_on(worked: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands page has run, as the working folder."""
    return work_in(worked, monkeypatch)


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
    going_on: Path, source: Path, run_cli: Callable[..., Any]
) -> None:
    place = going_on  # its demo has been made, which another one finds done
    (place / "files").symlink_to(source)
    tutorial = ROOT / "docs/tutorial.md"
    (place / "my-city.yaml").write_text(code_blocks(tutorial, "yaml")[0], encoding="utf-8")
    for line in command_lines(tutorial):
        if "queries.csv" in line:
            _ask(place)
        run_line(run_cli, line)
    assert (place / "report" / "report.html").is_file()
    assert len((place / "trips.csv").read_text().splitlines()) == 3
    bundle = place / "distilled.tar.zst"
    city = load_city(place / "work" / "cities" / "my-city")
    generated = place.glob("work/store/runs/*/generated/*.csv")
    assert holders_of_recorded_trips(bundle, city, generated) == {}
    assert holders_of(bundle, str(place), f"/{place.owner()}/") == {}


def test_commands_page_runs_as_written_and_names_every_command(worked: Path) -> None:
    lines = [line.split()[1:] for line in command_lines(ROOT / "docs/commands.md")]
    said = {name for words in lines for name in (words[0], "-".join(words[:2]))}
    documented = {path.stem.removeprefix("hoserkd-") for path in HELP.glob("hoserkd-*.txt")}
    assert documented - {"bundle-create", "tune-search"} <= said
    assert (worked / "compare.svg").is_file()
    assert (worked / "again.csv").read_bytes() == next(
        (worked / "unpacked" / "generated").glob("test-astar.csv")).read_bytes()


@pytest.mark.parametrize("page", ["docs/compatibility.md", "docs/settings.md", "docs/store.md"])
def test_pages_that_go_on_run_as_written(
    page: str, going_on: Path, run_cli: Callable[..., Any]
) -> None:
    lines = command_lines(ROOT / page)
    assert len(lines) > 2
    for line in lines:
        run_line(run_cli, line)


def test_dashboard_page_lines_draw_what_they_would_show(
    going_on: Path, run_cli: Callable[..., Any]
) -> None:
    lines = command_lines(ROOT / "docs/dashboard.md")
    for number, line in enumerate(lines):
        shot = "" if "--screenshot" in line else f" --screenshot page-{number}.svg"
        run_line(run_cli, line + shot)
    assert len(list(going_on.glob("page-*.svg"))) == len(lines) - 1
    assert (going_on / "run.svg").is_file()


def test_study_page_lines_run_as_written(
    going_on: Path, run_cli: Callable[..., Any]
) -> None:
    lines = command_lines(ROOT / "docs/study.md")
    answer = [run_line(run_cli, line) for line in lines][-1]
    for word in ("distilled", "All test trips", "The teacher of distilled alone", "study.svg"):
        assert word in answer.stdout


def test_every_command_line_in_a_block_is_run() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        page = document.relative_to(ROOT).as_posix()
        text = document.read_text("utf-8")
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
        kinds = {kind for kind, block in blocks if re.search(r"^(\$ )?hoserkd ", block, re.M)}
        assert kinds <= {"sh"}, f"{page}: a command line in a block of {kinds}"
        assert (page in RUN) == bool(kinds), page


def test_command_lines_in_sentences_name_what_there_is() -> None:
    """They are read and not run: most hold a placeholder or stand for an hour's work."""
    found = [(document.name, line) for document in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))
             for line in re.findall(r"(?:`|^ {4})hoserkd ([^`\n]+)", document.read_text("utf-8"),
                                    re.M)]
    assert len(found) > 20
    for page, line in found:
        words = [word for word in shlex.split(line.rstrip("\\")) if not PLACEHOLDERS.match(word)]
        paths = [HELP / f"{name_of(words[:count])}.txt" for count in (1, 2)]
        names = [path for path in paths if path.is_file()]
        assert names or words[0].startswith("-"), f"{page}: {line}"
        known = "".join(path.read_text("utf-8") for path in (*names, HELP / "hoserkd.txt"))
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known), f"{page}: {line}"


def name_of(words: list[str]) -> str:
    """Return what the help of a command is filed under."""
    return "-".join(["hoserkd", *words])


def test_performance_page_names_benchmarks_that_exist() -> None:
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    named = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    there = {path.stem for path in (ROOT / "benchmarks").glob("*.py")
             if "__main__" in path.read_text("utf-8")}
    assert named <= there
    assert len(named) > 5


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    pages = [page.read_text("utf-8") for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))]
    named = {name for page in pages for name in re.findall(r"(?:`|^)make ([a-z]+)", page, re.M)}
    assert {"demo", "test", "install"} <= named <= targets


def test_faq_quotes_messages_that_are_said() -> None:
    said = re.sub(r"\s+", " ", "".join(
        path.read_text("utf-8") for path in (ROOT / "hoserkd").rglob("*.py")))
    said = re.sub(r'" f?"', "", said)
    quoted = re.findall(r"\*\*`([^`]+)`\*\*", (ROOT / "docs/faq.md").read_text("utf-8"))
    assert len(quoted) > 9
    for message in quoted:
        assert message in said, message


def test_tuning_page_lines_are_understood(place: Path, run_cli: Callable[..., Any]) -> None:
    lines = command_lines(ROOT / "docs/tuning.md")
    assert len(lines) >= 5
    for line in lines:
        assert "tune.study" in run_line(run_cli, f"{line} --show-config").stdout


def _ask(place: Path) -> None:
    """Write the queries of two generated trips as a user's own."""
    found = (place / "work/store/runs").glob("*/generated/*.csv")
    generated = max(found, key=lambda path: path.stat().st_mtime)
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
    section = document.read_text("utf-8").split("### Worked example")[1].split("```python")[0]
    told = set(re.findall(r"\d\.\d{4}", section)) - {"0.0036"}
    assert len(told) > 15
    said = {f"{float(number):.4f}" for number in re.findall(r"\d\.\d+", printed)}
    assert told - {"0.0032", "0.1547", "0.0018", "0.0003"} <= said
    assert f"{0.01 * 0.3581:.4f}" == "0.0036"


def test_documents_link_only_to_what_exists() -> None:
    for document in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / target).exists(), f"{document.name} -> {target}"
