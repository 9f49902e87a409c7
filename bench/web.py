"""A web process: requests a second of the buy endpoint, from a load generator in a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path

from bench import harness
from bench.harness import Case
from bench.peers import web_apps
from bench.servers import HOST, free_port, redis_server, stop

CONNECTIONS = 64
UVICORN = ["-m", "uvicorn", "--factory", "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
UVICORN += ["--log-level", "error", "--host", HOST]
GUNICORN = ["-m", "gunicorn", "--worker-class", "gthread", "--workers", "1", "--threads", "32", "--keep-alive", "60"]
GUNICORN += ["--graceful-timeout", "2", "--log-level", "error"]
SERVERS = {
    "uvicorn, Starlette": {
        "flashsale": "starlette_ours",
        "one EVALSHA per call": "starlette_script",
        "no Redis at all": "starlette_nothing",
    },
    "gunicorn gthread, Flask": {
        "flashsale": "flask_ours",
        "one EVALSHA per call": "flask_script",
        "no Redis at all": "flask_nothing",
    },
}
WAYS = {
    "uvicorn, Starlette": "one process, uvloop, httptools; EVALSHA by redis.asyncio, a connection per request",
    "gunicorn gthread, Flask": "one process, 32 threads; EVALSHA by redis-py, a connection per thread",
}
_RUNS = itertools.count(1)


@contextlib.contextmanager
def _serving(bed, server, app):
    """Runs a web server on the client's core; yields its port once it answers."""
    port = free_port()
    if server.startswith("uvicorn"):
        command = [*UVICORN, "--port", str(port), f"bench.peers.web_apps:{app}"]
    else:
        command = [*GUNICORN, "--bind", f"{HOST}:{port}", f"bench.peers.web_apps:{app}()"]
    with harness.on(harness.CLIENT):
        process = subprocess.Popen([sys.executable, *command], env=web_apps.environment(bed))
    try:
        until = time.monotonic() + 30
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > until:
                raise ChildProcessError(f"{server} does not answer")
            time.sleep(0.05)
        yield port
    finally:
        stop(process)


def _answers(port):
    headers = {"X-Buyer": "first", "Idempotency-Key": f"first-{port}"}
    try:
        asked = urllib.request.Request(f"http://{HOST}:{port}/buy/phone", method="POST", headers=headers)
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return answer.status == 202
    except OSError:
        return False


def _load(bed, port, seconds):
    """Measures one web server under load; the generator shares the core of Redis."""
    bed.fresh()
    _answers(port)  # connects again, if that must be
    prefix = f"r{next(_RUNS)}"
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{math.ceil(seconds)}s"]
        command += ["-s", str(Path(__file__).with_name("web.lua")), f"http://{HOST}:{port}", "--", prefix]
    else:
        command = [sys.executable, "-m", "bench.client", str(port), str(CONNECTIONS), str(seconds), prefix]
    with harness.on(harness.SERVER):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    if failed := figures.pop("failed"):
        raise AssertionError(f"{failed:.0f} requests failed")
    return figures


def run(bench):
    with redis_server() as bed, contextlib.ExitStack() as stack:
        cases = []
        for server, apps in SERVERS.items():
            for peer, app in apps.items():
                port = stack.enter_context(_serving(bed, server, app))
                measure = partial(_load, bed, port, max(1.0, 3 * bench.seconds))
                cases.append(Case("web", server, peer, measure))
        generator = "wrk" if shutil.which("wrk") else "bench/client.py"
        return {"records": bench.run("web", cases), "ways": WAYS, "generator": generator, "connections": CONNECTIONS}
