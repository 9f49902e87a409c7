"""Imports point down: each folder of the package stands on a floor, and docs/design.md shows them all."""

from __future__ import annotations

import ast
import functools
from graphlib import TopologicalSorter
from pathlib import Path

from tools import rooms

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "flashsale"
FLOOR = {room: floor for floor, row in enumerate(rooms.FLOORS) for room in row}
FROM_THE_SIDE = {("cli", "demo"), ("__main__", "cli")}  # the command starts the demo; nothing else may


@functools.cache
def modules() -> dict[str, Path]:
    return {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def imports(path: Path) -> set[str]:
    """The modules of the package that this one names, wherever in it the import stands."""
    found, known = set(), modules()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{each.name}" for each in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    found &= known.keys()
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)} - {name_of(path)}


def room(name: str) -> str:
    return [*name.split("."), "__init__"][1]


def test_imports_point_down() -> None:
    known = modules()
    assert {room(name) for name in known} == FLOOR.keys()
    upward = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imports(path)
        if FLOOR[room(other)] >= FLOOR[room(name)]
        and room(other) != room(name)
        and (room(name), room(other)) not in FROM_THE_SIDE
    ]
    assert not upward


def test_no_imports_go_in_a_circle() -> None:
    list(TopologicalSorter({name: imports(path) for name, path in modules().items()}).static_order())


def test_the_package_root_is_small() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.name != "__pycache__"]) <= 20


def test_the_picture_in_the_documentation_is_made_from_the_code() -> None:
    assert rooms.main(["--check"]) == 0
