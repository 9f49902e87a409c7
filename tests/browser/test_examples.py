"""The command that opens a shop, and the tests of the Django shop, in a process of their own.

The other shops' are collected where they stand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_django_shop(tmp_path: Path) -> None:
    environment = {
        "DJANGO_SETTINGS_MODULE": "examples.django_shop.settings",
        "SHOP_SECRET": "test",
        "SHOP_DATABASE": str(tmp_path / "shop.db"),
        "FLASHSALE_SALE": "test",
        "FLASHSALE_REDIS_URL": "redis://localhost:1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}"]
    done = subprocess.run(
        [*command, "examples/django_shop"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_redis_that_cannot_be_used_is_named() -> None:
    command = [sys.executable, "-m", "examples", "flask", "--port=0", "--redis=redis://h?unknown=1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert told.stderr == "python -m examples: --redis: has an option that redis-py does not know\n"
