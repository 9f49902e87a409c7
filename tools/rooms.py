"""Writes the picture of the package into docs/design.md, or checks that it is up to date.

    python tools/rooms.py            # write it
    python tools/rooms.py --check    # fail when it is not what the code says

It shows each module with the first line of its docstring, in its folder; a generated twin is shown once, with its
source. tests/unit/test_layers.py holds the imports to the floors.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "src" / "flashsale"
PAGE = PROJECT / "docs" / "design.md"
BEGIN, END = "<!-- rooms: written by tools/rooms.py -->\n```text\n", "```\n"

# From the ground up. Whoever stands on a floor imports from lower floors, and from its own folder.
FLOORS = [
    ["errors", "lua"],
    ["model"],
    ["_rules", "keys", "web"],
    ["_sql"],
    ["aio", "_sync"],
    ["__init__", "clients", "stores"],
    ["ops"],
    ["contrib", "testing"],
    ["cli", "demo", "__main__"],
]
UNSEEN = {"management", "migrations"}  # Django's own folders, as Django wants them


def picture() -> str:
    """Returns the floors, highest first, and below each its modules."""
    lines = []
    for number, rooms in reversed(list(enumerate(FLOORS, start=1))):
        for room in rooms:
            path = PACKAGE / room
            lines.append(line(f"{number}  ", path if (path / "__init__.py").exists() else path.with_suffix(".py")))
            if path.is_dir() and room != "_sync":
                lines += inside(path, depth=1)
    return "\n".join(lines) + "\n"


def inside(folder: Path, depth: int) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.name == "__init__.py" or path.name in UNSEEN | {"__pycache__"}:
            continue
        if path.suffix == ".py" or (path / "__init__.py").exists():
            lines.append(line("   " + "  " * depth, path))
            if path.is_dir():
                lines += inside(path, depth + 1)
    return lines


def line(indent: str, path: Path) -> str:
    home = path / "__init__.py" if path.is_dir() else path
    said = ast.get_docstring(ast.parse(home.read_text("utf-8"))) or ""
    name = f"{path.name}/" if path.is_dir() else path.stem
    return f"{indent}{name:<{24 - len(indent)}}{said.partition(chr(10))[0]}".rstrip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the picture is old")
    options = parser.parse_args(argv)
    page = PAGE.read_text("utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    wanted = f"{before}{BEGIN}{picture()}{END}{after}"
    if not begin or not end:
        print(f"rooms: {PAGE.name} has no place for the picture", file=sys.stderr)
        return 1
    if page == wanted:
        return 0
    if options.check:
        print(f"rooms: the picture in {PAGE.name} is old: make sync", file=sys.stderr)
        return 1
    PAGE.write_text(wanted, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
