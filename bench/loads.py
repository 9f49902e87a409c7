"""Crowds: callers that buy, wait for the answer, and buy again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from bench.harness import Figures, summary


class _Clock:
    """Takes the calls of one measurement. It ends for everybody at the same moment; calls under way are waited for."""

    def __init__(self, callers: int, seconds: float) -> None:
        self.callers, self.seconds = callers, seconds
        self.latencies: list[float] = []
        self.late = 0

    def start(self) -> None:
        self._cpu, self.begin = time.process_time(), time.perf_counter()
        self.end = self.begin + self.seconds

    def stop(self) -> tuple[Figures, int]:
        """Returns the figures, and how many calls were answered in all, the warm-up included."""
        took, calls = time.perf_counter() - self.begin, len(self.latencies)
        in_time = calls - self.late
        # Slower than one call per caller, the last ones belong to the measurement.
        rate = in_time / self.seconds if in_time >= self.callers else calls / took
        cpu = (time.process_time() - self._cpu) / calls
        return summary(self.latencies, rate, cpu), self.callers + calls


async def tasks(buy: Callable[[str], Awaitable[object]], callers: int, seconds: float) -> tuple[Figures, int]:
    """Runs `callers` tasks; each buys once before the clock starts, so that every connection is there."""
    clock, now = _Clock(callers, seconds), time.perf_counter
    note = clock.latencies.append

    async def caller(number: int) -> None:
        count, began, end = 0, now(), clock.end
        while began < end:
            await buy(f"{number}-{count}")
            done = now()
            count += 1
            note(done - began)
            began = done
        clock.late += 1

    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(buy(f"w-{number}") for number in range(callers)))
        clock.start()
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(caller(number))
    return clock.stop()


def threads(buy: Callable[[str], object], callers: int, seconds: float) -> tuple[Figures, int]:
    """Runs `callers` threads, as `tasks` does."""
    clock, now = _Clock(callers, seconds), time.perf_counter
    latencies: list[list[float]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []
    ready = threading.Barrier(callers, action=clock.start)

    def caller(number: int) -> None:
        try:
            buy(f"w-{number}")
            ready.wait(30)
            count, began, end, note = 0, now(), clock.end, latencies[number].append
            while began < end:
                buy(f"{number}-{count}")
                done = now()
                count += 1
                note(done - began)
                began = done
        except BaseException as error:
            errors.append(error)
            ready.abort()

    running = [threading.Thread(target=caller, args=[number], daemon=True) for number in range(callers)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(seconds + 60)
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    clock.late = callers
    clock.latencies = [value for own in latencies for value in own]
    return clock.stop()
