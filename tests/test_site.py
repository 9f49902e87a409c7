"""The documentation's site builds, and every warning is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "trees")]
    built = subprocess.run(
        [*command, str(ROOT / "docs"), str(tmp_path / "site")], capture_output=True, text=True, check=False, timeout=110
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    pages = {page.stem for page in (tmp_path / "site").glob("*.html")}
    written = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert written <= pages
    reference = (tmp_path / "site" / "api.html").read_text()
    assert all(f"flashsale.{name}" in reference for name in ("FlashSale.buy", "Inventory.reserve", "Worker.run"))
