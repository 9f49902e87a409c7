"""Crowds: callers that buy, wait for the answer, and buy again."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

from bench.harness import Figures, summary


async def tasks(buy: Callable[[str], Awaitable[object]], callers: int, seconds: float) -> tuple[Figures, int]:
    """Runs `callers` tasks; each buys once before the clock starts, so that every connection is there.

    Returns:
        The figures, and how many calls were answered in all.
    """
    clock, latencies = time.perf_counter, []
    note = latencies.append
    async with asyncio.timeout(seconds + 60):
        await asyncio.gather(*(buy(f"w-{number}") for number in range(callers)))
        cpu, end = time.process_time(), clock() + seconds

        async def caller(number: int) -> int:
            count, began = 0, clock()
            while began < end:
                await buy(f"{number}-{count}")
                done = clock()
                count += 1
                if done < end:
                    note(done - began)
                began = done
            return count

        async with asyncio.TaskGroup() as group:
            running = [group.create_task(caller(number)) for number in range(callers)]
    calls = sum(task.result() for task in running)
    cpu = (time.process_time() - cpu) / max(1, calls)
    return summary(latencies, seconds, cpu), callers + calls


def threads(buy: Callable[[str], object], callers: int, seconds: float) -> tuple[Figures, int]:
    """Runs `callers` threads, as `tasks` does."""
    clock = time.perf_counter
    latencies: list[list[float]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []
    counts = [0] * callers
    ready, end, cpu = threading.Barrier(callers + 1), 0.0, 0.0

    def caller(number: int) -> None:
        try:
            buy(f"w-{number}")
            ready.wait(30)
            ready.wait(30)
            count, began, note = 0, clock(), latencies[number].append
            while began < end:
                buy(f"{number}-{count}")
                done = clock()
                count += 1
                if done < end:
                    note(done - began)
                began = done
            counts[number] = count + 1
        except BaseException as error:
            errors.append(error)
            ready.abort()

    running = [threading.Thread(target=caller, args=[number], daemon=True) for number in range(callers)]
    for thread in running:
        thread.start()
    try:
        ready.wait(30)
        cpu, end = time.process_time(), clock() + seconds
        ready.wait(30)
    except threading.BrokenBarrierError:
        pass
    for thread in running:
        thread.join(seconds + 60)
    cpu = (time.process_time() - cpu) / max(1, sum(counts))
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return summary([value for own in latencies for value in own], seconds, cpu), sum(counts)
