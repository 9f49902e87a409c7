"""A shop whose store was made, and used, before it forked: it says whether each process has connections of its own.

python -m tests.chaos.faults.forked <flashsale, flashsale.aio or django> <shares or nothing> <database URL> ...
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import multiprocessing
import os
import sys
from typing import Any

from flashsale import Goods, Order, OrderState
from tests.support.helpers import settled

AIO, DJANGO = "flashsale.aio", "django"
FORK = multiprocessing.get_context("fork")


class Program:
    """What parent and children do with one store.

    Args:
        case: the API, or Django.
        url: of an empty database.
        shares: children go on with their parent's connections.
    """

    def __init__(self, case: str, url: str, *, shares: bool) -> None:
        self.case = case
        self._who = "SELECT " + ("pg_backend_pid()" if url.startswith("postgres") else "CONNECTION_ID()")
        self._left = contextlib.ExitStack()
        if case == DJANGO:
            from tests.support import django_shop

            django_shop.set_up()
            name = url.partition(":")[0]
            alias = self._left.enter_context(django_shop.database(name, url, CONN_MAX_AGE=None))
            module = importlib.import_module("flashsale.contrib.django.store")
            self.store = module.DjangoStore("spring", using=alias)
            if shares:
                module._aliases.clear()
        else:
            self.store = importlib.import_module(f"{case}.stores").SQLAlchemyStore(url, "spring")
            if shares:
                del self.store._process
                type(self.store)._process = property(lambda _: os.getpid(), lambda *_: None)

    def run(self, coroutine: Any) -> Any:
        """Runs it to its end; for Django without an event loop, for which nothing waits there."""
        if self.case != DJANGO:
            return asyncio.run(coroutine)
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value

    async def begin(self) -> int:
        if self.case != DJANGO:
            await settled(self.store.create_all())
        await settled(self.store.put_goods(Goods("phone", 1000)))
        return await self.who()

    async def who(self) -> int:
        """Returns the server's number of our connection."""
        if self.case == AIO:
            async with self.store.transaction() as connection:
                return (await connection.exec_driver_sql(self._who)).scalar()
        with self.store.transaction() as connection:
            if self.case != DJANGO:
                return connection.exec_driver_sql(self._who).scalar()
            with connection.cursor() as cursor:
                cursor.execute(self._who)
                return cursor.fetchone()[0]

    async def sell(self, name: str) -> int:
        """Saves thirty orders, and sees that each answer is its own."""
        me = await self.who()
        for number in range(30):
            order = Order(f"{name}-{number}", "phone", name, 1)
            assert (await settled(self.store.save([order]))).inserted == {order.order_id}
            assert await settled(self.store.states([order.order_id])) == {order.order_id: OrderState.PERSISTED}
        assert await self.who() == me
        return me

    def child(self, answers: Any, name: str = "") -> None:
        gc.collect()
        answers.put(self.run(self.sell(name) if name else self.who()))

    def fork(self, *names: str) -> list[Any]:
        answers = FORK.Queue()
        children = [FORK.Process(target=self.child, args=(answers, name)) for name in names]
        for each in children:
            each.start()
        if len(names) > 1 and self.case != AIO:  # whose parent's event loop has ended
            self.run(self.sell("parent"))
        told = [answers.get(timeout=30) for _ in children]
        for each in children:
            each.join()
        return told


def play(program: Program) -> None:
    first = program.run(program.begin())
    assert program.fork("") != [first], "a child speaks on its parent's connection"
    assert len({first, *program.fork("c-1", "c-2", "c-3")}) == 4, "processes share a connection"
    if program.case != AIO:
        assert program.run(program.who()) == first, "a child has ended its parent's connection"
    print("each by itself")


def main(case: str, shares: str, *urls: str) -> None:
    for url in urls:
        play(Program(case, url, shares=bool(shares)))


if __name__ == "__main__":
    main(*sys.argv[1:])
