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
        head: the words of a batch before its orders, of which it says how many.
        group: the words of each order of a batch.
    """

    one: list[str]
    head: list[str]
    group: list[str]

    @classmethod
    def capture(cls, client: redis.Redis, sale: str, goods_id: str) -> Self:
        """Buys in both ways and looks on. The orders stay in Redis."""

        async def crowd() -> None:
            settings = client.connection_pool.connection_kwargs
            async with (
                redis.asyncio.Redis(host=settings["host"], port=settings["port"]) as another,
                flashsale.aio.FlashSale(another, sale) as shop,
            ):
                names = [str(number) for number in range(10, 30)]
                await asyncio.gather(*(shop.buy(goods_id, _BUYER + name, order_id=_ORDER + name) for name in names))

        with FlashSale(client, sale) as shop:
            shop.buy(goods_id, "somebody")  # now the server knows the script
            one = capture(client, lambda: shop.buy(goods_id, _BUYER, order_id=_ORDER))[-1]
        batch = max(capture(client, lambda: asyncio.run(crowd())), key=len)
        places = [place for place, word in enumerate(batch) if re.fullmatch(_ORDER + r"\d\d", word)]
        width = places[1] - places[0]
        name = batch[places[0]].removeprefix(_ORDER)
        first = len(batch) - width * len(places)
        head = [re.sub(rf"\b{len(places)}\b", _COUNT, word) for word in batch[:first]]
        group = [word.replace(_ORDER + name, _ORDER).replace(_BUYER + name, _BUYER) for word in batch[first:][:width]]
        return cls(one, head, group)

    def purchase(self, name: str) -> list[str]:
        """Returns the words after EVALSHA of a call that sells one order, by a buyer of the same name."""
        return [word.replace(_ORDER, name).replace(_BUYER, name) for word in self.one[1:]]

    def batches(self, names: Sequence[str], size: int = BATCH) -> list[bytes]:
        """Returns calls that sell these orders, `size` each, as they go over the wire."""
        payloads = []
        for first in range(0, len(names), size):
            batch = names[first : first + size]
            words = [word.replace(_COUNT, str(len(batch))) for word in self.head]
            for name in batch:
                words += [word.replace(_ORDER, name).replace(_BUYER, name) for word in self.group]
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
