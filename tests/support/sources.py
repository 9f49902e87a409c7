"""The source of the package, for tests that read it."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import flashsale

PACKAGE = Path(flashsale.__file__).parent


@functools.cache
def trees() -> dict[str, ast.Module]:
    """Returns every module of the package, parsed, by its path in the package's folder."""
    return {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}
