"""Runs the demo: starts the servers and the processes, goes through the three phases, and settles."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from redis import RedisError
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from flashsale._rules.urls import DATABASE_URL, REDIS_URL
from flashsale.aio import FlashSale
from flashsale.aio.stores import SQLAlchemyStore
from flashsale.demo import databases, sources
from flashsale.demo.crowd import Share
from flashsale.demo.databases import Database
from flashsale.demo.options import GOODS_ID, LEAD, PER_BUYER, DemoError, OptionError, Options
from flashsale.demo.processes import Helper, Member, helper, member
from flashsale.demo.redis_server import redis_for
from flashsale.demo.settlement import Settlement, compare
from flashsale.demo.signals import Signals, Stopped
from flashsale.demo.tally import Tally
from flashsale.demo.view import Snapshot, View
from flashsale.errors import FlashSaleError
from flashsale.model import Goods
from flashsale.testing import _processes as processes
from flashsale.testing._redis_server import Server

_LOOK_EVERY: Final = 0.2  # seconds between looks at Redis
_SYNC_EVERY: Final = 0.2  # seconds between passes of the syncer
_LATE: Final = 2.0  # seconds after the opening in which buyers still arrive
_RESALE: Final = 5.0  # seconds that returned units have to find a new buyer
_REST: Final = 30.0  # seconds until worker and syncer have nothing left to do
_SOCKET_ROOM: Final = 60  # characters for the folder above ours: a unix socket's path has room for about 100


def run(options: Options, view: View | None = None) -> int:
    """Runs the demo, and leaves nothing behind but what `options.keep` asks for.

    Returns:
        The exit code: 0 when every number agrees, 1 when not or when the demo could not go on, 130 after Ctrl-C.

    Raises:
        OptionError: a server that was given cannot be used.
    """
    view = view or View()
    try:
        settlement = asyncio.run(_run(options, view))
    except Stopped as stopped:
        view.say("stopped: nothing is left running")
        return 128 + stopped.number
    except OptionError:
        raise
    except (DemoError, FlashSaleError, RedisError) as error:
        print(f"flashsale demo: {error}", file=sys.stderr)
        return 1
    view.show_settlement(settlement)
    return 0 if settlement.agrees else 1


async def _run(options: Options, view: View) -> Settlement:
    """Runs the demo, unless a signal ends it; everything that was started is stopped in either case."""
    sale = f"demo-{secrets.token_hex(4)}"
    signals = Signals()
    with signals.heeded(), _temporary_folder() as folder:
        async with redis_for(options.redis, folder) as server:
            database = databases.database_for(options.database, folder, sale)
            view.say(f"Redis: {server.label}")
            view.say(f"database: {database.label}")
            return await Runner(options, sale, server, database, folder, view, check=signals.check).run()


class Runner:
    """One run of the demo.

    Args:
        options: what was asked for.
        sale: name of the sale, never used before.
        server: the Redis.
        database: the database, with its tables.
        folder: for logs.
        view: the screen.
        check: called while waiting; raises when it is time to stop.
    """

    def __init__(
        self,
        options: Options,
        sale: str,
        server: Server,
        database: Database,
        folder: Path,
        view: View,
        *,
        check: Callable[[], None],
    ) -> None:
        self._options = options
        self._server = server
        self._database = database
        self._folder = folder
        self._view = view
        self._check = check
        self._snapshot = Snapshot(units=options.units)
        self._most_booked = 0
        self._helpers: list[Helper] = []
        self._crowd: list[Member] = []
        self._name = sale

    async def run(self) -> Settlement:
        """Goes through the three phases and returns what the three sides say.

        Raises:
            DemoError: a process ended early, or something took too long.
        """
        async with AsyncExitStack() as stack:
            self._client = Redis.from_url(self._server.url, decode_responses=False)
            stack.push_async_callback(self._client.aclose)
            self._store = SQLAlchemyStore(self._database.url, self._name)
            stack.push_async_callback(self._store.aclose)
            self._sale = FlashSale(self._client, self._name, store=self._store)
            stack.push_async_callback(self._sale.aclose)
            stack.push_async_callback(self._clean_up)
            stack.enter_context(self._view)
            await self._start(stack)
            await self._before()
            await self._during()
            first = await sources.end_of_open_phase(self._sale, self._client)
            await self._after()
            exits = await self._close()
            return compare(
                self._options.units,
                self._tally(),
                await sources.read_redis(self._sale, self._client, first, self._most_booked),
                await sources.read_database(self._store, first),
                exits,
            )

    # -- the phases -------------------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        """Starts syncer, worker and crowd; the crowd's members answer when they are ready."""
        options, count = self._options, min(self._options.processes, self._options.buyers)
        await self._sale.inventory.load_scripts()  # fakeredis hangs up on whoever asks for one that it does not know
        self._view.say(f"starting a syncer, a worker, and {options.buyers:,} buyers in {count} processes")
        for name, extra in (("syncer", ["--interval", str(_SYNC_EVERY)]), ("worker", [])):
            environment = {REDIS_URL: self._server.url, DATABASE_URL: self._database.url}
            command = helper(name, [name, "--sale", self._name, *extra], self._folder, environment)
            self._helpers.append(await stack.enter_async_context(command))
        bounds = [options.buyers * place // count for place in range(count + 1)]
        for place, (first, end) in enumerate(pairwise(bounds)):
            share = Share(
                redis=self._server.url,
                database=self._database.url,
                sale=self._name,
                first=first,
                buyers=end - first,
                seed=options.seed,
                arrivals=LEAD + _LATE,
                patience=options.patience,
            )
            self._crowd.append(await stack.enter_async_context(member(f"crowd-{place}", share, self._folder)))
        await self._until_finished("ready")

    async def _before(self) -> None:
        """Puts the item into the database, from where the syncer loads it; the crowd comes too early."""
        self._snapshot.title = "before: not started"
        opens_at = await self._sale._ledger.time() + LEAD
        units = self._options.units
        await self._store.put_goods(Goods(GOODS_ID, total=units, per_buyer=PER_BUYER, opens_at=opens_at))
        await self._until(self._is_loaded, "the syncer loads the item", self._options.patience)
        self._view.say(f"before: the crowd is early; {units:,} units, open in {LEAD:g} s by the clock of Redis")
        self._tell("go")
        await self._until(lambda: self._is_past(opens_at), "the sale opens", self._options.patience)

    async def _during(self) -> None:
        """Everybody buys."""
        self._snapshot.title = "during: the sale is open"
        self._view.say("during: the sale is open")
        await self._until_finished("go")

    async def _after(self) -> None:
        """Winners look at their orders, cancel and pay; others buy the returned units."""
        self._snapshot.title = "after: status, cancellations, resale"
        self._view.say("after: winners ask for their orders, some cancel, some pay; others wait for returned units")
        self._tell("after")
        await self._until_finished("after")
        await self._until(self._is_sold_out, "the returned units are sold", _RESALE, required=False)
        self._tell("close")
        await self._until_finished("close")

    async def _close(self) -> dict[str, int]:
        """Lets worker and syncer finish, ends all processes, and returns their exit codes."""
        self._snapshot.title = "closing: the last orders go to the database"
        self._view.say("closing: the last orders go to the database")
        await self._until(self._is_at_rest, "worker and syncer have nothing to do", _REST, required=False)
        self._tell("end")
        exits = {running.name: await processes.stop(running.process) for running in self._helpers}
        return exits | {running.name: await processes.ended(running.process, _REST) for running in self._crowd}

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _until(
        self, done: Callable[[], Awaitable[bool]], what: str, within: float, *, required: bool = True
    ) -> None:
        """Waits `within` seconds at most for `done`; watches the processes, and shows the snapshot meanwhile."""
        deadline = time.monotonic() + within
        while not await done():
            self._check()
            if time.monotonic() > deadline:
                if required:
                    raise DemoError(f"it took longer than {within:.0f} s until {what}")
                return
            for running in (*self._helpers, *self._crowd):
                running.check()
            await self._look()
            await asyncio.sleep(_LOOK_EVERY)
        await self._look()

    async def _until_finished(self, phase: str) -> None:
        async def finished() -> bool:
            return all(phase in running.finished for running in self._crowd)

        await self._until(finished, f"the crowd has finished {phase!r}", self._options.patience)

    async def _is_loaded(self) -> bool:
        try:
            await self._sale.inventory.stock(GOODS_ID)
            return (await self._sale.gate.state(GOODS_ID)).opens_at is not None
        except LookupError:
            return False

    async def _is_past(self, when: float) -> bool:
        return await self._sale._ledger.time() >= when

    async def _is_sold_out(self) -> bool:
        return (await self._sale.inventory.stock(GOODS_ID)).remaining == 0

    async def _is_at_rest(self) -> bool:
        """Nothing is under way, and the syncer has given back every slot whose buyer is gone."""
        booked = (await self._sale.inventory.stock(GOODS_ID)).booked
        access = (await self._sale.gate.state(GOODS_ID)).access
        return access == booked and await sources.pending(self._sale) == 0

    async def _look(self) -> None:
        """Shows where the sale is."""
        snapshot = self._snapshot
        snapshot.tally = self._tally()
        try:
            snapshot.booked = (await self._sale.inventory.stock(GOODS_ID)).booked
            snapshot.passed = (await self._sale.gate.state(GOODS_ID)).access
            snapshot.pending = await sources.pending(self._sale)
        except LookupError:
            return  # not loaded yet
        self._most_booked = max(self._most_booked, snapshot.booked)
        self._view.show(snapshot)

    def _tell(self, phase: str) -> None:
        for running in self._crowd:
            running.send(phase.encode() + b"\n")

    def _tally(self) -> Tally:
        return sum((running.tally for running in self._crowd), Tally())

    async def _clean_up(self) -> None:
        """Removes the sale from the host's servers."""
        if self._options.keep and not (self._server.ours and self._options.database is None):
            self._view.say(f"kept: keys flashsale:{{{self._name}}}:*, rows of sale {self._name} in flashsale_* tables")
            return
        try:
            if not self._server.ours:
                await sources.forget(self._client, self._sale.keys)
            if self._options.database is not None:
                await asyncio.to_thread(databases.forget, self._database.url, self._name)
        except (RedisError, SQLAlchemyError) as error:
            self._view.say(f"sale {self._name} could not be removed from your servers: {type(error).__name__}")


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    root = Path("/tmp")  # noqa: S108 - where the usual one is too long for a socket
    is_long = len(tempfile.gettempdir()) > _SOCKET_ROOM and root.is_dir()
    folder = Path(tempfile.mkdtemp(prefix="flashsale-", dir=root if is_long else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
