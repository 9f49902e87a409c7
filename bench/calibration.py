"""How fast and how free the machine is: a fixed loop of Python on both cores at once, before and after each section."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TypedDict

from bench.harness import CPUS, on

TURNS = 5_000_000  # about a quarter of a second


class Calibration(TypedDict):
    """What the loop took, in seconds of CPU and of wall time, means of the cores; and the load average."""

    cpu: float
    wall: float
    load: float


def calibrate() -> Calibration:
    """Runs the loop on the cores of the measurements, all at once: what else runs must then take turns with it."""
    loops = []
    for core in CPUS[:2] or [0]:
        with on({core}):
            loops.append(subprocess.Popen([sys.executable, "-m", "bench.calibration"], stdout=subprocess.PIPE))
    outputs = [loop.communicate()[0] for loop in loops]
    cpu, wall = map(sum, zip(*(json.loads(output) for output in outputs), strict=True))
    return {"cpu": cpu / len(loops), "wall": wall / len(loops), "load": os.getloadavg()[0]}


def _loop() -> tuple[float, float]:
    """Returns the seconds of CPU and of wall time that the loop took."""
    cpu, wall, total = time.process_time(), time.perf_counter(), 0
    for number in range(TURNS):
        total += number & 7
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    print(json.dumps(_loop()))
