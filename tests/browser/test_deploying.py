"""The files of examples/deploy: systemd and YAML read them, their commands exist, and all three say the same."""

from __future__ import annotations

import configparser
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from flashsale.contrib.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "examples" / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PROCFILE = dict(line.split(": ", 1) for line in (DEPLOY / "Procfile").read_text().splitlines())
SERVICES = {
    "web": "shop-web",
    "worker": "flashsale-worker@",
    "syncer": "flashsale-syncer@",
    "outbox": "flashsale-outbox@",
}
BIN, SCRIPTS = "/srv/shop/venv/bin/", Path(sys.executable).parent
SERVERS = {"gunicorn", "uvicorn"}
ADDRESS = re.compile(r" --bind \S+")  # systemd's is that of the socket


def unit(path: Path) -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read(path)
    return read


def systemd_command(name: str) -> str:
    return unit(DEPLOY / "systemd" / f"{SERVICES[name]}.service")["Service"]["ExecStart"].removeprefix(BIN)


def all_commands() -> set[str]:
    """Returns every command of every file, those in the comments for Flask and FastAPI too."""
    starts = {start for path in UNITS for start in re.findall(r"ExecStart=(.*)", path.read_text())}
    composed = {shlex.join(service["command"]) for service in COMPOSE["services"].values() if "build" in service}
    return {start.removeprefix(BIN) for start in starts} | composed | set(PROCFILE.values())


@pytest.mark.parametrize("command", sorted(all_commands()))
def test_the_commands_exist_and_have_the_options(command: str, tmp_path: Path) -> None:
    program, *words = shlex.split(command)
    words = ["examples.own_tables.flask_shop.app" if word == "shop.app" else word for word in words]
    asked = words[:2] if program == "flask" else []  # --app, of which the verbs depend
    verbs = [] if program in SERVERS else [*itertools.takewhile(lambda word: word[0] != "-", words[len(asked) :])]
    shown = subprocess.run(
        [SCRIPTS / program, *asked, *verbs, "--help"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "DJANGO_SETTINGS_MODULE": "examples.own_tables.django_shop.settings",
            "SHOP_SECRET": "test",
            "SHOP_DATABASE": str(tmp_path / "shop.db"),
            "FLASHSALE_SALE": "test",
            "FLASHSALE_REDIS_URL": "redis://localhost:1",
            "FLASHSALE_DATABASE_URL": "sqlite://",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    for option in (word for word in words[len(asked) :] if word.startswith("--")):
        assert option in shown.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_the_three_ways_run_the_same(name: str) -> None:
    composed = shlex.join(COMPOSE["services"][name]["command"])
    assert systemd_command(name) == ADDRESS.sub("", PROCFILE[name]) == ADDRESS.sub("", composed)


def test_systemd_reads_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace(BIN, f"{SCRIPTS}/"))
        if path.suffix == ".service":
            service = unit(path)["Service"]
            assert service["Restart"] == "always"
            assert int(service["TimeoutStopSec"]) > 20  # what docs/operating.md says that they need
            assert unit(path)["Install"]["WantedBy"] == unit(path)["Unit"]["PartOf"] == "shop.target"
    analyze = shutil.which("systemd-analyze")
    if analyze is not None:  # it also knows the names of all settings
        copies = sorted(tmp_path.iterdir())
        said = subprocess.run(
            [analyze, "verify", "--man=no", *copies], capture_output=True, text=True, timeout=60, check=False
        )
        assert (said.returncode, said.stderr) == (0, "")


def test_the_probe_of_kubernetes_looks_at_the_file_of_the_worker(tmp_path: Path) -> None:
    spec = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    (worker,) = spec["containers"]
    path, probe = worker["command"][-1], worker["livenessProbe"]["exec"]["command"]
    assert (worker["command"][-2], path in probe[-1]) == ("--health", True)
    file = tmp_path / "health"
    asked = [*probe[:-1], probe[-1].replace(path, str(file))]
    codes = [subprocess.run(asked, capture_output=True, check=False).returncode]
    file.touch()
    codes.append(subprocess.run(asked, check=False).returncode)
    os.utime(file, (1, 1))
    codes.append(subprocess.run(asked, check=False).returncode)
    assert codes == [1, 0, 1]


def test_what_compose_names_is_there() -> None:
    services: dict[str, Any] = COMPOSE["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            condition = how["condition"]
            assert condition == "service_completed_successfully" or "healthcheck" in services[needed]
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        if "build" in service and service is not services["migrate"]:
            assert service["restart"] == "unless-stopped"
            assert service["stop_grace_period"] == "30s"
    assert " noeviction" in shlex.join(services["redis"]["command"])


def test_the_settings_are_known() -> None:
    known = {PREFIX + each.name.upper() for each in fields(Settings)}
    named = re.findall(r"^#? ?(FLASHSALE_\w+)=", (DEPLOY / "environment").read_text(), re.MULTILINE)
    composed = [name for name in COMPOSE["x-shop"]["environment"] if name.startswith(PREFIX)]
    assert named
    assert {*named, *composed} <= known


def test_the_page_shows_what_stands_in_the_files() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    shown = re.findall(r"^```(?:ini|yaml|text)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    files = "".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    assert len(shown) == 5
    assert [part for part in shown if part not in files] == []
