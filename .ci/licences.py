"""Write docs/licences.md: under what terms each package that hoserkd needs is.

`python .ci/licences.py` reads the installed packages' own metadata; `--check` only says whether
the page is still right, and fails where a package has none or one that is not on the list below.
"""

import re
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))

from lock import normalised, required  # noqa: E402

PAGE = ROOT / "docs" / "licences.md"
FREE = ("MIT", "BSD", "Apache", "PSF", "Python Software Foundation", "ISC", "MPL", "Mozilla",
        "Zlib", "CC0", "Unlicense", "0BSD", "HPND", "CNRI", "BSL-1.0", "Boost")
"""Beginnings or parts of licences that let hoserkd be passed on under its own."""
KNOWN = {"pymetis": "MIT; includes METIS (Apache-2.0)"}
"""Where a package's metadata says less than its files."""
HEADER = """\
# Licences

hoserkd is under the MIT licence. Installing it brings these packages, as their own metadata
describe them; nothing of them is copied into hoserkd. Torch brings others of its own, NVIDIA's
libraries among them where it is a CUDA build.

Made by `make licences`; a test holds it against `pyproject.toml` and what is installed.

| package | licence |
| --- | --- |
"""


def licence_of(found: Distribution) -> str:
    """Return the licence that a package's metadata name, shortly."""
    said = found.metadata
    name = normalised(said["Name"])
    if name in KNOWN:
        return KNOWN[name]
    if said["License-Expression"]:
        return str(said["License-Expression"])
    classified = [line.rpartition(" :: ")[2] for line in said.get_all("Classifier") or []
                  if line.startswith("License ::") and not line.endswith("OSI Approved")]
    if classified:
        return ", ".join(classified)
    first = (said["License"] or "").strip().splitlines()
    return re.sub(r"\s+", " ", first[0])[:60] if first else ""


def needed() -> list[str]:
    """Return the packages that hoserkd needs to run, transitively, torch itself included."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted({*required(project["dependencies"]), "torch"})


def page() -> tuple[str, list[str]]:
    """Return the page, and the packages whose licence is missing or unknown."""
    licences = {name: licence_of(distribution(name)) for name in needed()}
    odd = [f"{name}: {text or 'no licence'}" for name, text in licences.items()
           if not any(word.lower() in text.lower() for word in FREE)]
    return HEADER + "".join(f"| {n} | {text} |\n" for n, text in licences.items()), odd


def main() -> int:
    """Write or check the page."""
    text, odd = page()
    for line in odd:
        sys.stderr.write(f"licences: {line}\n")
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        sys.stderr.write(f"licences: {PAGE} is out of date; run `make licences`\n")
        return 1
    return int(bool(odd))


if __name__ == "__main__":
    raise SystemExit(main())
