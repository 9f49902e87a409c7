"""Where a sale is played that loses its Redis: one server that comes back, or three behind Sentinels that elect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from flashsale.testing.proxy import FaultProxy
from tests.support import servers
from tests.support.helpers import until


class Alone:
    """One Redis, reached through a proxy by those who buy.

    Attributes:
        primary: the Redis.
        proxies: in front of it.
    """

    def __init__(self, primary: servers.RedisServer, proxy: FaultProxy) -> None:
        self.primary = primary
        self.proxies = [proxy]

    @property
    def tripped(self) -> int:
        """How many faults of the network have fired."""
        return sum(proxy.tripped for proxy in self.proxies)

    @property
    def url(self) -> str:
        """Where the command `flashsale` finds this Redis."""
        return self.primary.url

    def cut(self, needle: bytes, times: int, *, half: bool) -> None:
        """Cuts the next replies to requests with these bytes."""
        (self.proxies[0].half_reply if half else self.proxies[0].cut_reply)(needle, times=times)

    def host_client(self) -> Any:
        """Returns an asyncio client as a shop has it."""
        return redis.asyncio.Redis(host=servers.HOST, port=self.proxies[0].port, socket_timeout=5)

    def watch_client(self) -> Any:
        """Returns an asyncio client that no fault of the network meets."""
        return self.primary.aclient(socket_timeout=5)

    async def whole(self) -> None:
        """Returns when all is in order again."""

    async def restart(self, down: float) -> None:
        """Kills the primary, and starts it again in its place after `down` seconds."""
        self.primary.kill()
        await asyncio.sleep(down)
        await asyncio.to_thread(self.primary.start)


class Watched(Alone):
    """A primary with two replicas behind three Sentinels; a proxy in front of each, for those who buy.

    Attributes:
        sentinels: the three.
        named: seconds from each kill until a Sentinel named another primary.
    """

    def __init__(
        self, members: list[servers.RedisServer], proxies: list[FaultProxy], sentinels: servers.Sentinels
    ) -> None:
        super().__init__(members[0], proxies[0])
        self.members = members
        self.proxies = proxies
        self.sentinels = sentinels
        self.named: list[float] = []
        self._raw = {member.port: member.client() for member in members}
        for proxy in proxies:
            proxy._faults = proxies[0]._faults  # what is due strikes whoever is the primary by then

    @property
    def url(self) -> str:
        return self.sentinels.url

    def host_client(self) -> Any:
        doors = {member.port: proxy.port for member, proxy in zip(self.members, self.proxies, strict=True)}

        class ThroughProxies(redis.asyncio.sentinel.Sentinel):
            async def discover_master(self, service_name: str) -> Any:
                host, port = await super().discover_master(service_name)
                return host, doors[port]

        manager = ThroughProxies(self.sentinels.addresses, socket_timeout=1)
        return manager.master_for(self.sentinels.name, socket_timeout=5)

    def watch_client(self) -> Any:
        return self.sentinels.amanager(socket_timeout=1).master_for(self.sentinels.name, socket_timeout=5)

    async def restart(self, down: float) -> None:
        victim = self.primary
        victim.kill()
        await asyncio.sleep(down)
        await asyncio.to_thread(victim.follow, None)
        await self.whole()

    async def elect(self) -> None:
        """Kills the primary for good; when another one was elected, it comes back as a replica."""
        victim, began = self.primary, time.monotonic()
        victim.kill()
        await self._see("another primary", lambda: self.sentinels.primary_ports() - {0, victim.port})
        self.named.append(time.monotonic() - began)
        await self._see("its election", lambda: self.sentinels.primary_port() not in {0, victim.port})
        # as start scripts do that ask the Sentinels first; else it is a primary of its own for ten seconds
        await asyncio.to_thread(victim.follow, self._member(self.sentinels.primary_port()))
        await self.whole()

    async def whole(self) -> None:
        """Returns when all Sentinels are content with one primary, and the others follow it.

        Who follows another is told to: the Sentinels would do it in some ten seconds.
        """
        began = time.monotonic()

        def is_whole() -> bool:
            states = [
                client.execute_command("SENTINEL MASTER", self.sentinels.name) for client in self.sentinels.clients
            ]
            asked = (time.monotonic() - began) * 1000
            if any(state["flags"] != "master" or state["last-ok-ping-reply"] > asked for state in states):
                return False
            if len({state["port"] for state in states}) > 1:
                return False
            self.primary = self._member(states[0]["port"])
            return self._follow(self.primary)

        await self._see("a primary that all agree on, and two replicas in step", is_whole)

    def _follow(self, primary: servers.RedisServer) -> bool:
        infos: dict[int, Any] = {port: raw.info("replication") for port, raw in self._raw.items()}
        leader = infos.pop(primary.port)
        if leader["role"] != "master":
            return False
        for port, info in infos.items():
            if info.get("master_port") != primary.port:
                self._raw[port].replicaof(servers.HOST, str(primary.port))
        online = [leader.get(f"slave{n}", {}).get("state") for n in range(2)]
        return online == ["online"] * 2 and all(info.get("master_link_status") == "up" for info in infos.values())

    def _member(self, port: int) -> servers.RedisServer:
        return next(member for member in self.members if member.port == port)

    async def _see(self, what: str, check: Callable[[], Any]) -> None:
        def seen() -> Any:
            with contextlib.suppress(redis.RedisError):  # it restarts, or loads
                return check()

        await until(lambda: asyncio.to_thread(seen), what, within=60)


@contextlib.contextmanager
def alone(**config: Any) -> Iterator[Alone]:
    """One Redis with an append-only file."""
    # no rewriting: its child process would outlive the server that we kill
    config = {"auto_aof_rewrite_percentage": 0, **config}
    with servers.redis_server(aof=True, **config) as server, FaultProxy(server.port) as proxy:
        yield Alone(server, proxy)


@contextlib.contextmanager
def watched(*, down_after: float, **config: Any) -> Iterator[Watched]:
    """A primary with two replicas, all with append-only files, and three Sentinels.

    Args:
        down_after: seconds of silence after which the primary counts as down.
        config: settings of all Redis servers.
    """
    config = {
        "aof": True,
        "auto_aof_rewrite_percentage": 0,
        "min_replicas_to_write": 1,
        "repl_diskless_sync": "yes",
        "repl_diskless_sync_delay": 0,
        **config,
    }
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(servers.redis_server(**config))
        members = [primary]
        members += [stack.enter_context(servers.redis_server(replica_of=primary, **config)) for _ in range(2)]
        proxies = [stack.enter_context(FaultProxy(member.port)) for member in members]
        sentinels = stack.enter_context(servers.sentinels(primary, down_after=down_after, failover_timeout=1.0))
        yield Watched(members, proxies, sentinels)
