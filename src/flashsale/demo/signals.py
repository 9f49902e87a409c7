"""Ctrl-C, SIGTERM and SIGHUP: they end the demo, but never while a process is being started."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Stopped(Exception):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Makes Ctrl-C, SIGTERM and SIGHUP cancel a task at its next wait."""

    def __init__(self) -> None:
        self._received: list[int] = []

    def check(self) -> None:
        """Raises Stopped after a signal: redis-py swallows a cancellation that comes while it connects."""
        if self._received:
            raise Stopped(self._received[0])

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Heeds them in this context, which must be entered by the task to cancel."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def receive(number: int) -> None:
            self._received.append(number)
            if len(self._received) == 1:  # the second one finds us cleaning up
                task.cancel()

        present = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        wanted = [number for number in present if signal.getsignal(number) is not signal.SIG_IGN]  # nohup means it
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            for number in wanted:
                loop.add_signal_handler(number, receive, number)
        try:
            yield
        except asyncio.CancelledError:
            self.check()
            raise
        finally:
            with suppress(NotImplementedError, RuntimeError, ValueError):
                for number in wanted:
                    loop.remove_signal_handler(number)
