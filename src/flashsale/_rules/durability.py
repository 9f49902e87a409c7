"""Durability: where an order must be before its buyer is told ACCEPTED, and whether it got there. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from flashsale._rules.server_check import OLDEST
from flashsale.errors import InvalidRequest
from flashsale.model.checks import check_int, check_seconds


class Durability(StrEnum):
    """What must have happened to an order before `buy` answers ACCEPTED.

    A shortfall is answered UNCERTAIN: the units are booked, and asking again with the order id waits again.
    """

    ACCEPTED = "accepted"
    """It is in the memory of the primary."""
    REPLICATED = "replicated"
    """Replicas have acknowledged it (WAIT)."""
    FSYNCED = "fsynced"
    """The primary has it on disk (WAITAOF; Redis 7.2, Valkey 7.2)."""
    PERSISTED = "persisted"
    """Its row is committed in the database."""


class Guarantee:
    """One durability, with its numbers.

    Args:
        durability: which.
        replicas: with REPLICATED, how many.
        within: seconds.
        socket_timeout: seconds; the wait ends before the connection would be given up.

    Attributes:
        needs_barrier: something must be waited for on the connection of the script.
    """

    def __init__(self, durability: Durability, *, replicas: int, within: float, socket_timeout: float) -> None:
        try:
            self.durability = Durability(durability)
        except ValueError as error:
            raise InvalidRequest("durability", f"must be one of {', '.join(Durability)}") from error
        self.replicas = check_int("replicas", replicas, 1)
        seconds = check_seconds("durable_within", within, low=0.001, high=60.0)
        seconds = min(seconds, max(socket_timeout / 2, socket_timeout - 0.5))
        self._milliseconds = max(1, round(seconds * 1000))
        self.needs_barrier = self.durability in {Durability.REPLICATED, Durability.FSYNCED}

    @property
    def oldest(self) -> tuple[int, int]:
        """The oldest server that can give it."""
        return (7, 2) if self.durability is Durability.FSYNCED else OLDEST

    @property
    def replicas_needed(self) -> int:
        """How many replicas it needs."""
        return self.replicas if self.durability is Durability.REPLICATED else 0

    def barrier(self, meta: str) -> list[tuple[str | int, ...]]:
        """Returns the commands to send behind the script; empty when there is nothing to wait for.

        From 7.2 on both barriers wait for this connection's own writes, and a repeated purchase writes nothing. So
        something is written first: what was written earlier on any connection lies before it in the stream.
        """
        if self.durability is Durability.REPLICATED:
            return [("HSET", meta, "barrier", 1), ("WAIT", self.replicas, self._milliseconds)]
        if self.durability is Durability.FSYNCED:
            return [("HSET", meta, "barrier", 1), ("WAITAOF", 1, 0, self._milliseconds)]
        return []

    def is_met(self, acknowledged: Any) -> bool:
        """True when the barrier's reply says that enough have it; None: no reply came."""
        if self.durability is Durability.REPLICATED:
            return _at_least(self.replicas, acknowledged)
        if self.durability is Durability.FSYNCED:
            return isinstance(acknowledged, list) and any(_at_least(1, synced) for synced in acknowledged[:1])
        return True


def _at_least(wanted: int, acknowledged: Any) -> bool:
    return isinstance(acknowledged, int) and acknowledged >= wanted
