"""One sale in which everything breaks, and the proof that nobody lost an order and no unit was sold twice.

    python -m tests.chaos --orders 20000 --worker-kills 200 --redis-kills 50 --cut-replies 500 --seed 1
    python -m tests.chaos --orders 20000 --worker-kills 200 --redis-kills 50 --elections 20 --cut-replies 500

Buyers' hosts reach a Redis with an append-only file through a proxy that cuts replies; they ask again, with the same
order id, until they are answered. Redis and the workers are killed with SIGKILL while orders are on their way and
started anew, a syncer runs, buyers pay, cancel and are refunded. Then the queue is left to drain and
`tests.support.consistency` asks buyers, Redis and database separately.

Every fault is tied to the number of an order and a delay, both drawn from the seed, so that it strikes in mid-traffic.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods, Order
from flashsale.keys import Keys
from flashsale.stores import SQLAlchemyStore
from tests.support import servers
from tests.support.chaos_steps import DOWN_AFTER, GOODS, HOLD, PER_BUYER, PLANS, SALE, Chaos, Crew, Options, Report
from tests.support.consistency import Purchase, check
from tests.support.database_faults import DatabaseFaults
from tests.support.database_proxy import DatabaseProxy
from tests.support.deployments import Alone, alone, clustered, watched
from tests.support.interrupted_host import InterruptedHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SLOW = """
CREATE FUNCTION take_your_time() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(random() * 0.04); RETURN NULL; END';
CREATE TRIGGER slow BEFORE INSERT ON flashsale_orders FOR EACH STATEMENT EXECUTE FUNCTION take_your_time();
"""  # a busy database; on an idle one a batch is over too soon for a worker to die in it


def plan(options: Options) -> tuple[list[Purchase], list[Goods]]:
    """Draws the purchases, and the item of which those beyond the wanted number must fail, unless units return."""
    chance = random.Random(options.seed)
    purchases = []
    for number in range(options.orders + options.orders // 10):
        order = Order(
            f"order-{number}-{chance.getrandbits(64):016x}",
            chance.choice(GOODS),
            f"buyer-{chance.randrange(options.orders)}",
            chance.choice((1, 1, 1, 2, 3)),
        )
        purchases.append(Purchase(order, chance.choices(list(PLANS), list(PLANS.values()))[0]))
    units: Counter[str] = Counter()
    for purchase in purchases[: options.orders]:
        units[purchase.order.goods_id] += purchase.order.quantity
    phones = Goods("phone", units["phone"], opens_at=1.0, per_buyer=PER_BUYER)
    return purchases, [phones, Goods("case", units["case"], opens_at=1.0, hold=HOLD)]


def play(
    options: Options,
    database_url: str,
    say: Callable[[str], None] = lambda _: None,
    *,
    postgres: servers.Postgres | None = None,
) -> Report:
    """Plays it all on an empty PostgreSQL database; everything that was started has ended on return.

    Args:
        options: what is to happen.
        database_url: of the database.
        say: is told of the progress.
        postgres: the server of the database, for the faults of a database.

    Raises:
        TimeoutError: something did not come to an end.
    """
    began = time.monotonic()
    purchases, goods = plan(options)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(servers.temporary_folder())
        store = stack.enter_context(SQLAlchemyStore(database_url, SALE))
        store.create_all()
        for entry in goods:
            store.put_goods(entry)
        with store.transaction() as connection:
            connection.exec_driver_sql(SLOW)
        deployment: Alone
        if options.slot_moves:
            deployment = stack.enter_context(clustered(SALE, appendfsync=options.appendfsync))
        elif options.elections:
            deployment = stack.enter_context(watched(down_after=DOWN_AFTER, appendfsync=options.appendfsync))
        else:
            deployment = stack.enter_context(alone(appendfsync=options.appendfsync))
        if options.first_layout:
            begun = {"epoch": 1, "state": "open", "layout": 1}
            deployment.primary.client().hset(Keys().of(SALE).meta, mapping=begun)
        url, faults = database_url, None
        if options.database_faults and postgres is not None:
            proxy = stack.enter_context(DatabaseProxy(database_url))
            url, faults = proxy.url.render_as_string(hide_password=False), DatabaseFaults(postgres, database_url, proxy)
        crew = Crew(folder, deployment.url, url, module="tests.support.chaos_command", moody=bool(options.moods))
        stack.callback(crew.close)
        interrupted = None
        if options.strikes:
            durability = "replicated" if deployment.replicas else "accepted"
            words = (deployment.url, SALE, durability, str(max(1, deployment.replicas)))
            interrupted = stack.enter_context(InterruptedHost(*words))
        chaos = Chaos(
            options,
            purchases,
            deployment=deployment,
            crew=crew,
            database_url=url,
            say=say,
            database_faults=faults,
            interrupted=interrupted,
        )
        report = chaos.report
        asyncio.run(_within(options.seconds * 1.75, chaos))
        report.wrong += crew.close()
        say("asking buyers, Redis and database")
        fresh = stack.enter_context(SQLAlchemyStore(database_url, SALE))  # the pool of the other met the faults
        report.consistency = check(purchases, deployment.primary.client(), fresh, SALE)
        report.wrong += report.consistency.wrong
    report.wrong += report.shortfall(options)
    report.seconds = time.monotonic() - began
    return report


async def _within(seconds: float, chaos: Chaos) -> None:
    try:
        async with asyncio.timeout(seconds):
            await chaos.run()
    except (TimeoutError, ExceptionGroup) as error:
        error.add_note(chaos.stand())
        raise


class _Progress:
    """Prints at most a line each five seconds."""

    def __init__(self) -> None:
        self._next = 0.0
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._next or "orders," not in text:
            self._next = now + 5
            print(f"{now - self._began:6.1f} s  {text}", flush=True)


@contextlib.contextmanager
def _found() -> Iterator[None]:
    try:
        yield
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        raise SystemExit(str(missing)) from missing


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all agree, 1 when anything does not."""
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=about,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    request = Options()
    add = parser.add_argument
    add("--orders", type=int, default=request.orders, metavar="N", help=f"to be accepted, about ({request.orders})")
    add("--worker-kills", type=int, default=request.worker_kills, metavar="N", help=f"({request.worker_kills})")
    add("--redis-kills", type=int, default=request.redis_kills, metavar="N", help=f"({request.redis_kills})")
    add(
        "--elections",
        type=int,
        default=request.elections,
        metavar="N",
        help="with any, Redis is a primary and two replicas behind three Sentinels, and buyers are told ACCEPTED when "
        f"a replica has their order ({request.elections})",
    )
    add(
        "--slot-moves",
        type=int,
        default=request.slot_moves,
        metavar="N",
        help="with any, Redis is a Cluster of three primaries with a replica each; the sale's slot moves, and the "
        f"source dies half way ({request.slot_moves})",
    )
    add("--cut-replies", type=int, default=request.cut_replies, metavar="N", help=f"({request.cut_replies})")
    add(
        "--database-faults",
        type=int,
        default=request.database_faults,
        metavar="N",
        help="killed, read-only, silent, locked, out of connections, COMMIT not answered, in turn "
        f"({request.database_faults})",
    )
    add(
        "--lost-keys",
        type=int,
        default=request.lost_keys,
        metavar="N",
        help=f"each key of the sale in turn; nobody mends but by `rebuild` ({request.lost_keys})",
    )
    add(
        "--strikes",
        type=int,
        default=request.strikes,
        metavar="N",
        help=f"calls struck by an exception of a signal's handler, at least ({request.strikes})",
    )
    add(
        "--moods",
        type=int,
        default=request.moods,
        metavar="N",
        help=f"exceptions that the workers' store raises, at least ({request.moods})",
    )
    add("--seed", type=int, default=request.seed, metavar="N", help=f"of all that is random ({request.seed})")
    add(
        "--seconds", type=float, default=request.seconds, metavar="S", help=f"of selling, at most ({request.seconds:g})"
    )
    add(
        "--appendfsync",
        choices=("always", "everysec"),
        default=request.appendfsync,
        help="of Redis. everysec holds a write back for up to 2 s while the disk syncs the one before: also kill -9 "
        f"may then lose orders, as the operator chose ({request.appendfsync})",
    )
    add("--first-layout", action="store_true", help="begin the sale in layout 1, as releases before did")
    options = Options(**vars(parser.parse_args(argv)))
    if options.orders < 20 or min(value for value in vars(options).values() if isinstance(value, int)) < 0:
        parser.error("at least 20 orders, and no count below 0")
    servers.end_on_signals()
    try:
        with _found(), servers.postgres() as postgres, postgres.database() as database_url:
            report = play(options, database_url, _Progress(), postgres=postgres)
    except KeyboardInterrupt:
        return 130
    print(f"\n{report.table()}\n")
    for line in report.wrong:
        print(f"WRONG: {line}")
    print("everything agrees" if not report.wrong else f"{len(report.wrong)} things are wrong")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
