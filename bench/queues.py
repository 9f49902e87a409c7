"""The queue: enqueue and consume with a handler that does nothing, and drain orders into PostgreSQL; both layouts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial

from bench.harness import Case
from bench.peers.consumers import QUEUES
from bench.servers import postgres, redis_server


def _consume(bed, peer, jobs, uri=""):
    """Runs a consumer in a process of its own, until it has seen all jobs."""
    bed.fresh()
    command = [sys.executable, "-m", "bench.peers.consumers", peer, str(bed.port), str(jobs), *([uri] if uri else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    if done.returncode or not done.stdout.strip():
        raise ChildProcessError(done.stderr.strip()[-300:] or f"exit code {done.returncode}, no figures")
    figures = json.loads(done.stdout.splitlines()[-1])
    if uri or not figures["enqueue"]:
        del figures["enqueue"]  # measured without PostgreSQL
    return figures


def _drain(bed, database, peer, jobs):
    with database.database() as uri:
        return _consume(bed, peer, jobs, uri)


def run(bench):
    with redis_server() as bed, postgres() as database:
        share = 0.1 if bench.quick else 1
        cases = []
        for peer, about in QUEUES.items():
            consume, drain = (int(jobs * share) for jobs in about.jobs)
            cases.append(Case("no-op", peer, "one consumer", partial(_consume, bed, peer, consume)))
            cases.append(Case("PostgreSQL", peer, "one consumer", partial(_drain, bed, database, peer, drain)))
        return {
            "records": bench.run("queue", cases),
            "postgres": database.version,
            "queues": {peer: asdict(about) for peer, about in QUEUES.items()},
        }
