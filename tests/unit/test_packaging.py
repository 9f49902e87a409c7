"""What `make` installs is pinned by a file that fits pyproject.toml, and each extra has something that uses it."""

from __future__ import annotations

import contextlib
import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tools.pins import OLDEST

PROJECT = Path(__file__).resolve().parents[2]
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = DECLARED["optional-dependencies"]


def pins() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text("utf-8").splitlines()
    assert lines[0].startswith("#")
    found = [re.fullmatch(r"([a-z0-9.-]+)==([0-9][a-z0-9.]*)", line) for line in lines[1:]]
    assert all(found), "a name and a release in every line: no place, no file"
    return {canonicalize_name(each[1]): each[2] for each in found if each}


def required() -> list[Requirement]:
    texts = [*DECLARED["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
    return [each for each in map(Requirement, texts) if each.name != "flashsale"]


def test_the_pins_fit_what_is_declared() -> None:
    pinned = pins()
    for each in required():
        assert each.specifier.contains(pinned[canonicalize_name(each.name)]), f"{each}: make pins"


def test_the_pins_allow_the_oldest_python() -> None:
    """A system's Python 3.11 is not the last of its patch releases."""
    for name, release in pins().items():
        with contextlib.suppress(metadata.PackageNotFoundError):  # of the benchmarks
            package = metadata.metadata(name)
            allowed = SpecifierSet(package.get("Requires-Python", ""))
            assert package["Version"] != release or allowed.contains(OLDEST), f"{name} {allowed}: make pins"


def test_every_extra_is_used_alone() -> None:
    uses = {path.stem for path in (PROJECT / "tools" / "extras").glob("*.py")}
    assert uses == EXTRAS.keys() - {"bench", "dev"}


def test_make_installs_by_the_pins() -> None:
    installs = [line for line in (PROJECT / "Makefile").read_text("utf-8").splitlines() if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


def test_what_a_host_installs_has_a_lowest_release() -> None:
    for name in EXTRAS.keys() - {"bench", "dev", "examples"}:
        for each in map(Requirement, EXTRAS[name]):
            assert each.name == "flashsale" or ">=" in str(each.specifier), f"{name}: {each}"
