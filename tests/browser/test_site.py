"""The documentation's site builds, and every warning is an error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import flashsale
from flashsale import aio, stores, testing

ROOT = Path(__file__).parent.parent.parent


def test_the_site_builds_without_a_warning_and_describes_every_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "site")], capture_output=True, text=True, check=False, timeout=280
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    written = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert written <= pages
    described = set(re.findall(r'id="(flashsale[\w.]*)"', (tmp_path / "site" / "api.html").read_text()))
    assert {"flashsale.FlashSale.buy", "flashsale.Inventory.reserve", "flashsale.Worker.run"} <= described
    errors = {f"flashsale.{name}" for name in vars(flashsale.errors)}  # they stand where they are defined
    exported = {
        f"{package.__name__}.{name}" for package in (flashsale, stores, testing) for name in package.__all__
    } | {f"flashsale.aio.{name}" for name in set(aio.__all__) - set(flashsale.__all__)}
    assert exported - errors <= described
    assert {name.replace("flashsale.", "flashsale.errors.") for name in exported & errors} <= described
