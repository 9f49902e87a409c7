"""The script call with which the library sells, seen on the wire: what a peer sends when it has the same guarantees."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import hiredis
import redis
import redis.asyncio

import flashsale.aio
from flashsale import FlashSale

BATCH = 128
_ARGUMENT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ORDER, _BUYER, _COUNT = "@order", "@buyer", "@count"


def capture(client: redis.Redis, act: Callable[[], object]) -> list[list[str]]:
    """Returns every EVALSHA, as its words, that reaches the server during `act`."""
    end = "captured"
    settings = client.connection_pool.connection_kwargs
    with socket.create_connection((settings["host"], settings["port"])) as monitor:
        lines = monitor.makefile(encoding="ascii")
        monitor.sendall(b"MONITOR\r\n")
        lines.readline()
        act()
        client.echo(end)
        calls = []
        for line in lines:
            words = [word.replace('\\"', '"').replace("\\\\", "\\") for word in _ARGUMENT.findall(line)]
            if words[-1:] == [end]:
                return calls
            if words and words[0] == "EVALSHA" and " lua]" not in line.partition('"')[0]:
                calls.append(words)
    raise EOFError("the server ended")


class Wire(NamedTuple):
    """A purchase as a template.

    Args:
        one: all words of a call that sells one order.
        many: the words after EVALSHA of a batch, which says how many orders it has; all order ids are one word here,
            and all buyers.
    """

    one: list[str]
    many: list[str]

    @classmethod
    def capture(cls, client: redis.Redis, sale: str, goods_id: str) -> Self:
        """Buys in both ways and looks on. The orders stay in Redis."""

        async def crowd() -> None:
            settings = client.connection_pool.connection_kwargs
            async with (
                redis.asyncio.Redis(host=settings["host"], port=settings["port"]) as another,
                flashsale.aio.FlashSale(another, sale) as shop,
            ):
                names = [str(number) for number in range(10, 24)]  # more would leave by two calls
                await asyncio.gather(*(shop.buy(goods_id, _BUYER + name, order_id=_ORDER + name) for name in names))

        with FlashSale(client, sale) as shop:
            shop.buy(goods_id, "somebody")  # now the server knows the script
            one = capture(client, lambda: shop.buy(goods_id, _BUYER, order_id=_ORDER))[-1]
        batch = max(capture(client, lambda: asyncio.run(crowd())), key=len)
        ids = [word for word in batch if word.startswith(_ORDER)]
        many = [re.sub(rf"\b{len(ids)}\b", _COUNT, word) for word in batch[1:]]
        for sign in (_ORDER, _BUYER):
            first = next(place for place, word in enumerate(many) if word.startswith(sign))
            many[first : first + len(ids)] = [sign]
        return cls(one, many)

    def purchase(self, name: str) -> list[str]:
        """Returns the words after EVALSHA of a call that sells one order, by a buyer of the same name."""
        return [word.replace(_ORDER, name).replace(_BUYER, name) for word in self.one[1:]]

    def batches(self, names: Sequence[str], size: int = BATCH) -> list[bytes]:
        """Returns calls that sell these orders, `size` each, as they go over the wire."""
        payloads = []
        for first in range(0, len(names), size):
            batch = names[first : first + size]
            words = ["EVALSHA"]
            for word in self.many:
                words += batch if word in {_ORDER, _BUYER} else [word.replace(_COUNT, str(len(batch)))]
            payloads.append(hiredis.pack_command(tuple(words)))
        return payloads

    @staticmethod
    def back_to_back(port: int, payloads: Sequence[bytes], ahead: int = 4) -> float:
        """Sends the calls with always `ahead` of them under way; returns the seconds that took."""
        reader = hiredis.Reader()
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            begin = time.perf_counter()
            for number, payload in enumerate(payloads):
                if number >= ahead:
                    _read(connection, reader)
                connection.sendall(payload)
            for _ in payloads[-ahead:]:
                _read(connection, reader)
            return time.perf_counter() - begin


def _read(connection: socket.socket, reader: hiredis.Reader) -> None:
    while (reply := reader.gets()) is False:
        if not (data := connection.recv(65536)):
            raise EOFError("the server ended")
        reader.feed(data)
    if isinstance(reply, Exception):
        raise reply
