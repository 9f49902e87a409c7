"""The command that opens a shop, and the tests of the Django shops, in processes of their own.

The other shops' are collected where they stand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


DJANGO_SHOPS = ["django_shop", "own_tables.django_shop"]


def play(shop: str, database: str, folder: Path, file: str = "") -> None:
    """Runs the tests of a shop in Django, or one file of them."""
    environment = {
        "DJANGO_SETTINGS_MODULE": f"examples.{shop}.settings",
        "SHOP_SECRET": "test",
        "SHOP_DATABASE": database,
        "FLASHSALE_SALE": "test",
        "FLASHSALE_REDIS_URL": "redis://localhost:1",
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={folder / 'tests'}"]
    done = subprocess.run(
        [*command, f"examples/{shop.replace('.', '/')}/{file}"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")} | environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shop", DJANGO_SHOPS)
def test_the_django_shops(shop: str, tmp_path: Path) -> None:
    play(shop, str(tmp_path / "shop.db"), tmp_path)


def test_the_django_shop_with_tables_of_its_own_on_postgresql(fresh_postgres_url: str, tmp_path: Path) -> None:
    play("own_tables.django_shop", fresh_postgres_url, tmp_path, "test_shop.py")


def test_a_redis_that_cannot_be_used_is_named() -> None:
    command = [sys.executable, "-m", "examples", "flask", "--port=0", "--redis=redis://h?unknown=1"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 1
    assert told.stderr == "python -m examples: --redis: has an option that redis-py does not know\n"
