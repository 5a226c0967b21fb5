"""Look the pinned packages up in an advisory database: `make audit`.

Asks pip-audit (its database is on the network), or, without a network, a copy of OSV's advisories
on PyPI: `python .ci/audit.py --advisories all.zip`, fetched beforehand from
https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip. Exit codes: 0 nothing known,
1 advisories found, 3 nothing could be looked up, which is said and is not the same as 0.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
FOUND, UNKNOWN = 1, 3


def pins(text: str) -> dict[str, str]:
    """Return the versions that a lock file pins, by package name."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def from_file(path: Path, pinned: dict[str, str]) -> list[str]:
    """Return what a zip of OSV advisories knows about the pinned versions."""
    known = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    found = []
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            advisory = json.loads(archive.read(entry))
            if "withdrawn" in advisory:
                continue
            for affected in advisory.get("affected", []):
                name = affected.get("package", {}).get("name", "").lower().replace("_", "-")
                if name in known and concerns(affected, known[name]):
                    found.append(f"{name} {known[name]}: {advisory['id']}: "
                                 f"{advisory.get('summary', '')[:100]}")
    return sorted(set(found))


def concerns(affected: dict[str, Any], version: str) -> bool:
    """Tell whether an advisory is about a version, by its list or by its ranges."""
    from packaging.version import InvalidVersion, Version

    if version in affected.get("versions", []):
        return True
    try:
        mine = Version(version)
        return any(low <= mine and (high is None or mine < high)
                   for low, high in spans(affected, Version))
    except InvalidVersion:
        return False


def spans(affected: dict[str, Any], version: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (introduced, fixed or None) of an advisory's ranges of releases."""
    for span in affected.get("ranges", []):
        if span.get("type") != "ECOSYSTEM":
            continue
        low = None
        for event in span.get("events", []):
            if "introduced" in event:
                low = version(event["introduced"])
            elif "fixed" in event and low is not None:
                yield low, version(event["fixed"])
                low = None
        if low is not None:
            yield low, None


def from_network() -> list[str] | None:
    """Return what pip-audit finds; None where it is missing or reaches no database."""
    if importlib.util.find_spec("pip_audit") is None:
        sys.stderr.write("audit: pip-audit is not installed (pip install pip-audit)\n")
        return None
    ended = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps",
         "--disable-pip", "--format", "json", "--progress-spinner", "off"],
        capture_output=True, text=True, check=False)
    try:
        listed = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = ended.stderr.strip().splitlines()[-1:] or ["no answer"]
        sys.stderr.write(f"audit: no advisory database was reached: {last[0][:200]}\n")
        return None
    return [f"{one['name']} {one['version']}: {known['id']}" for one in listed
            for known in one.get("vulns", [])]


def main() -> int:
    """Look up and say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--advisories", type=Path, help="OSV's all.zip for PyPI")
    given = parser.parse_args()
    pinned = pins(LOCK.read_text())
    found = from_file(given.advisories, pinned) if given.advisories else from_network()
    if found is None:
        sys.stderr.write(f"audit: {len(pinned)} packages were NOT looked up\n")
        return UNKNOWN
    for line in found:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"{len(pinned)} packages looked up, {len(found)} advisories\n")
    return FOUND if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
