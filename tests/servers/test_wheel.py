"""The wheel that users get: everything in it, nothing else needed, and it sells."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
PACKAGE = PROJECT / "src" / "flashsale"

SELL = """
import sys
import redis
import flashsale

with redis.Redis.from_url(sys.argv[1]) as client, flashsale.FlashSale(client, "shop") as sale:
    sale.preload("phone", 1)
    sale.start("phone")
    receipt = sale.buy("phone", "alice")
    assert receipt.accepted, receipt
    receipt = sale.buy("phone", "bob")
    assert receipt.outcome is flashsale.Outcome.SOLD_OUT, receipt
print(flashsale.__file__)
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, PROJECT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_contains_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "[pytest11]\nflashsale = _flashsale_pytest" in archive.read(entries).decode()
    wanted = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == wanted | {"_flashsale_pytest.py"}
    assert "flashsale/py.typed" in inside
    assert "flashsale/lua/reserve.lua" in inside
    assert "flashsale/lua/include/number.lua" in inside


def test_the_wheel_needs_three_packages_and_brings_a_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        headers = Parser().parsestr(archive.read(metadata).decode())
        assert any(name.endswith("/LICENSE") for name in archive.namelist())
    needed = [line for line in headers.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert sorted(needed) == ["hiredis>=3", "redis<9,>=5.3", "typing-extensions>=4.4"]


def test_pytest_finds_the_plugin_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """As a host's pytest does, by the entry point; also in a process that has imported the package before."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    test = tmp_path / "test_host.py"
    test.write_text(
        "def test_it(make_flashsale):\n    assert make_flashsale({'phone': 1}).buy('phone', 'ann').accepted\n"
    )
    options = ["-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:asyncio", f"--rootdir={tmp_path}", str(test)]
    start = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import pytest"
    for first in ("", "; import flashsale"):
        assert "1 passed" in run(sys.executable, "-c", f"{start}{first}; sys.exit(pytest.main({options}))")


@pytest.mark.timeout(600)
def test_the_wheel_sells_from_an_empty_environment(wheel: Path, tmp_path: Path, redis_url: str) -> None:
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-compile", wheel)  # nobody imports most of it
    where = run(python, "-I", "-c", SELL, redis_url)
    assert Path(where.strip()).is_relative_to(tmp_path)
    assert "demo" in run(python.with_name("flashsale"), "--help")
