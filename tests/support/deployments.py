"""Where a sale is played that loses its Redis: one server that comes back, or three behind Sentinels that elect."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
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
        replicas: that must have an order before its buyer is told ACCEPTED.
    """

    replicas = 0

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

    replicas = 2  # with one, the Sentinels may promote the other, which has not the order

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
        await _seen("another primary", lambda: self.sentinels.primary_ports() - {0, victim.port})
        self.named.append(time.monotonic() - began)
        await _seen("its election", lambda: self.sentinels.primary_port() not in {0, victim.port})
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

        await _seen("a primary that all agree on, and two replicas in step", is_whole)

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


class Clustered(Alone):
    """Three primaries of a Cluster with a replica each; a proxy in front of each node, for those who buy.

    Attributes:
        cluster: the six.
        members: their processes.
    """

    replicas = 1

    def __init__(self, cluster: servers.Cluster, proxies: list[FaultProxy], sale: str) -> None:
        self.cluster = cluster
        self.members = cluster.nodes + cluster.replicas
        super().__init__(cluster.node_of(f"{{{sale}}}"), proxies[0])
        self.proxies = proxies
        self._raw = {member: member.client() for member in self.members}
        self._slot = int(self._raw[self.primary].cluster("KEYSLOT", f"{{{sale}}}"))
        for proxy in proxies:
            proxy._faults = proxies[0]._faults  # what is due strikes whoever has the slot by then

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{servers.HOST}:{member.port}" for member in self.members)

    def host_client(self) -> Any:
        doors = {member.port: proxy.port for member, proxy in zip(self.members, self.proxies, strict=True)}
        return redis.asyncio.RedisCluster(
            host=servers.HOST,
            port=self.proxies[0].port,
            socket_timeout=5,
            address_remap=lambda address: (address[0], doors.get(address[1], address[1])),
        )

    def watch_client(self) -> Any:
        return self.cluster.aclient(socket_timeout=5)

    async def restart(self, down: float) -> None:
        """Kills the primary of the slot, and starts it again before its replica takes over."""
        self.primary.kill()
        await asyncio.sleep(down)
        await asyncio.to_thread(self.primary.start)
        await self.whole()

    async def elect(self) -> None:
        """Kills the primary of the slot; when its replica has taken over, it comes back as the replica."""
        victim = self.primary
        victim.kill()
        await _seen("another primary", lambda: self._owner() not in {None, victim})
        await asyncio.to_thread(victim.start)
        await self.whole()

    async def move(self) -> None:
        """Moves the slot to another primary, whose source dies when half of the keys are there."""
        await self.whole()
        source = self.primary
        target = next(node for node in self._primaries() if node is not source)
        servers.begin_move(self._slot, source, target)
        raw = self._raw[source]
        names = raw.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 1000)
        for name in names[: len(names) // 2]:
            raw.execute_command("MIGRATE", servers.HOST, target.port, name, 0, 5000)
        raw.wait(1, 5000)  # for the replica that inherits: else it would still have what has gone
        source.kill()
        await _seen("another primary", lambda: self._owner() not in {None, source})
        await asyncio.to_thread(source.start)
        await _seen("the end of the move", lambda: self._end_move(target))
        await self.whole()

    def _end_move(self, target: servers.RedisServer) -> bool:
        """Does what `redis-cli --cluster fix` does with a slot that was left half way; who has moved, stays.

        A key that was made anew where the old one had gone is dropped.
        """
        source = self._owner()
        if source is None or source is target:
            return source is target
        raw = self._raw[source]
        servers.own(self._slot, source, target)  # it imported the slot, and so has not heard who inherited it
        servers.begin_move(self._slot, source, target)
        while names := raw.execute_command("CLUSTER", "GETKEYSINSLOT", self._slot, 1000):
            for name in names:
                try:
                    raw.execute_command("MIGRATE", servers.HOST, target.port, name, 0, 5000)
                except redis.ResponseError as error:
                    if "BUSYKEY" not in str(error):
                        raise
                    raw.delete(name)
        servers.end_move(self._slot, source, target)
        return True

    async def whole(self) -> None:
        """Returns when every node says that all is well, and the slot's primary has its replica."""
        await _seen("a whole Cluster", self._is_whole)

    def _is_whole(self) -> bool:
        if not all(self._raw[member].cluster("INFO")["cluster_state"] == "ok" for member in self.members):
            return False
        owners = {self._seen_by(member) for member in self.members}
        if len(owners) > 1 or (owner := owners.pop()) is None:
            return False
        self.primary = owner
        info: dict[str, Any] = self._raw[owner].info("replication")
        return info.get("slave0", {}).get("state") == "online"

    def _primaries(self) -> list[servers.RedisServer]:
        return [member for member in self.members if self._raw[member].role()[0] == b"master"]

    def _owner(self) -> servers.RedisServer | None:
        """Returns who has the slot, as most see it: a node that imports it does not hear of an election."""
        views: Counter[servers.RedisServer | None] = Counter()
        for member in self.members:
            with contextlib.suppress(redis.RedisError):
                views[self._seen_by(member)] += 1
        return max(views, key=views.__getitem__, default=None)

    def _seen_by(self, witness: servers.RedisServer) -> servers.RedisServer | None:
        for low, high, (_, port, *_), *_ in self._raw[witness].execute_command("CLUSTER SLOTS"):
            if low <= self._slot <= high:
                return next(each for each in self.members if each.port == port)
        return None


async def _seen(what: str, check: Callable[[], Any]) -> None:
    last: list[str] = []

    def seen() -> Any:
        try:
            return check()
        except redis.RedisError as error:  # it restarts, or loads
            last[:] = [str(error)]

    try:
        await until(lambda: asyncio.to_thread(seen), what, within=60)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {last}") from error


@contextlib.contextmanager
def clustered(sale: str, **config: Any) -> Iterator[Clustered]:
    """A Cluster of three primaries with append-only files, and a replica of each.

    Args:
        sale: whose slot moves.
        config: settings of all nodes.
    """
    config = {"aof": True, "auto_aof_rewrite_percentage": 0, "cluster_require_full_coverage": "no", **config}
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(servers.cluster(replicas=True, **config))
        proxies = [stack.enter_context(FaultProxy(member.port)) for member in cluster.nodes + cluster.replicas]
        yield Clustered(cluster, proxies, sale)


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
