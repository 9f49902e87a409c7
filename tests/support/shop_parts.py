"""What settings of a shop name by dotted paths."""

from __future__ import annotations

from typing import Any


class Hooks:
    def saved(self, connection: Any, orders: Any) -> None:
        pass


class StockHooks:
    def stock(self, connection: Any, goods_id: str, units: int) -> None:
        if units > 5:
            raise LookupError(f"the shop has fewer than {units} of {goods_id}")


class AsyncHooks:
    async def saved(self, connection: Any, orders: Any) -> None:
        pass

    async def stock(self, connection: Any, goods_id: str, units: int) -> None:
        pass


class MixedHooks(AsyncHooks):
    def settled(self, connection: Any, order: Any, before: Any, after: Any) -> None:
        pass


class NoHooks:
    def save(self, connection: Any, orders: Any) -> None:
        """Not one of the three names."""


class Wants:
    def __init__(self, table: str) -> None:
        self.table = table


class Metrics:
    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def outcome(self, goods_id: str, outcome: str) -> None:
        self.outcomes.append(outcome)

    def batch(self, size: int, wait: float) -> None:
        pass

    def lag(self, orders: int, seconds: float) -> None:
        pass


hooks = Hooks()
