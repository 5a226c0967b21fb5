"""What hoserkd stands on: declared, licensed, looked up, and whole in a wheel."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def script(name: str) -> ModuleType:
    """Return a script of `.ci` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(requirements: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0]).lower()  # type: ignore[index]
            for line in requirements}


def imported() -> dict[str, set[str]]:
    """Return the top-level packages that hoserkd imports, and the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "hoserkd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for module in modules:
                found.setdefault(module.partition(".")[0], set()).add(path.name)
    return {name: files for name, files in found.items()
            if name not in {*sys.stdlib_module_names, "hoserkd", ""}}


def test_hoserkd_imports_only_what_it_declares_and_declares_only_what_it_imports() -> None:
    declared = names(PROJECT["dependencies"])
    extras = names([line for lines in PROJECT["optional-dependencies"].values() for line in lines])
    homes = packages_distributions()
    used = set()
    for package, files in imported().items():
        mine = {re.sub(r"[-_.]+", "-", home).lower() for home in homes.get(package, [package])}
        assert mine & (declared | extras), f"{package} is not declared: {sorted(files)}"
        used |= mine
    # Optuna itself loads cmaes, for the sampler that a study asks it for; torch-geometric holds the
    # layers whose weights ours take (docs/decisions/0002).
    assert declared - used <= {"cmaes", "torch-geometric"}, declared - used


def test_every_package_has_a_free_licence_and_the_page_lists_it() -> None:
    licences = script("licences")
    listed = set(re.findall(r"^\| ([\w.-]+) \|", (ROOT / "docs/licences.md").read_text(), re.M))
    assert set(licences.needed()) <= listed
    assert licences.page()[1] == []


def test_advisories_are_found_in_a_file(tmp_path: Path) -> None:
    audit = script("audit")
    path = tmp_path / "all.zip"

    def advisory(name: str, **affected: object) -> str:
        return json.dumps({"id": "X-1", "summary": "bad", "affected": [
            {"package": {"name": name}, **affected}]})

    events = [{"introduced": "0"}, {"fixed": "2.0"}, {"introduced": "3.0"}]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.json", advisory("Some_Thing", versions=["1.0"]))
        archive.writestr("2.json", advisory("ranged", ranges=[
            {"type": "ECOSYSTEM", "events": events}]))
    found = {version: bool(audit.from_file(path, {"ranged": version}))
             for version in ("1.9", "2.0", "2.5", "3.0", "9")}
    assert found == {"1.9": True, "2.0": False, "2.5": False, "3.0": True, "9": True}
    assert audit.from_file(path, {"some-thing": "1.0"}) == ["some-thing 1.0: X-1: bad"]
    assert audit.from_file(path, {"some-thing": "1.1"}) == []


def test_an_audit_that_reached_nothing_does_not_say_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = script("audit")
    monkeypatch.setattr(sys, "argv", ["audit"])
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: None)
    assert audit.main() == audit.UNKNOWN
    assert "NOT looked up" in capsys.readouterr().err


@pytest.mark.torture
def test_the_wheel_is_whole_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """The dependencies are the present ones: what is tried is what the wheel itself brings."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
                   cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("hoserkd-*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
                   check=True)
    inside = next(environment.glob("lib/python*/site-packages"))
    (inside / "present.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def said(*arguments: object) -> str:
        ended = subprocess.run(list(map(str, arguments)), cwd=tmp_path, check=False, text=True,
                               capture_output=True, env={"HOME": str(tmp_path), "COLUMNS": "200"})
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    place = said(python, "-c", "import hoserkd; print(hoserkd.__file__)")
    assert place.startswith(str(inside))
    command = environment / "bin" / "hoserkd"
    assert "--output" in said(command, "demo", "--help")
    profiles = json.loads(said(command, "profiles", "list", "--json"))["profiles"]
    assert {"demo", "smoke", "beijing"} <= {profile["name"] for profile in profiles}
    packed = zipfile.ZipFile(wheel).namelist()
    for path in (ROOT / "hoserkd").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            assert path.relative_to(ROOT).as_posix() in packed
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in packed)
    # What strangers are asked to run first: the whole way on the embedded city.
    said(command, "demo", "--profile", "smoke", "--output", tmp_path / "demo", "--json")
