"""What it costs to keep an append-only file."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

from bench.harness import Case
from bench.peers import same_script
from bench.purchases import back_to_back, tasks
from bench.servers import redis_server

POLICIES = {
    "off": {},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec", "auto_aof_rewrite_percentage": 0},
    "always": {"appendonly": "yes", "appendfsync": "always", "auto_aof_rewrite_percentage": 0},
}


def run(bench):
    names = [f"l-{number}" for number in range(15_000 if bench.quick else 150_000)]
    with contextlib.ExitStack() as stack:
        cases = []
        for policy, config in POLICIES.items():
            bed = stack.enter_context(redis_server(**config))
            measure = partial(back_to_back, bed, bed.wire.batches(names), len(names))
            cases.append(Case("aof", "the script, back to back, 128 a call", policy, measure))
            measure = partial(tasks, same_script.OURS, asyncio.new_event_loop, 512, bed, bench.seconds)
            cases.append(Case("aof", "flashsale, 512 callers", policy, measure))
        return {"records": bench.run("aof", cases)}
