"""The command `flashsale`: the demo, the worker and the syncer that every real sale needs, and the outbox.

Demo and stores are imported only by the commands that use them: they need extras.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import flashsale
import flashsale.aio.clients
import flashsale.aio.stores
import flashsale.clients
import flashsale.stores
from flashsale._rules.hooks import are_awaited, is_awaited
from flashsale._rules.rows import EVENT_STATES
from flashsale._rules.urls import DATABASE_URL, FORMS, REDIS_URL
from flashsale.contrib.named import function, made
from flashsale.contrib.serving import serve, serve_async
from flashsale.errors import InvalidRequest
from flashsale.keys import Keys, PlainKeys

HOOKS: Final = "FLASHSALE_HOOKS"
EVENTS: Final = "FLASHSALE_EVENTS"
STORE: Final = "FLASHSALE_STORE"
BAD_OPTION: Final = 2  # exit code, as argparse's own
INTERRUPTED: Final = 130

_ABOUT: Final = """\
Sell a limited stock on Redis under hundreds of times the usual traffic,
without ever selling a unit twice. To see it: flashsale demo
"""

_RUNNING: Final = f"""\
A sale needs one syncer and one worker or more; start several for safety. An
outbox is for shops that want to be told what became of each order. All run
until SIGTERM or SIGINT, finish what they have begun, and exit with 0. They wait
for a Redis or a database that does not answer.

{REDIS_URL} and {DATABASE_URL} stand in for --redis and
--database: every user of a machine sees the passwords on a command line.
{HOOKS}, a dotted path, stands in for --hooks: give worker and syncer
the same hooks as the shop, or their steps are left out. They may be async.
{EVENTS} names the states that leave an event for the outbox; set it
alike for all that write orders: shop, worker and syncer.

The tables are made by SQLAlchemyStore(url, sale).create_all(), and upgraded by
its upgrade(), or by your migrations.

'flashsale COMMAND --help' lists the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the process' exit code: 0 done, 1 failed, 2 bad options, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run is None:
        parser.print_help(sys.stderr)
        return BAD_OPTION
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except _Stop as error:
        print(f"flashsale {options.command}: error: {error}", file=sys.stderr)
        return BAD_OPTION
    except InvalidRequest as error:
        print(f"flashsale {options.command}: error: --{error.field}: {error.reason}", file=sys.stderr)
        return BAD_OPTION
    except KeyboardInterrupt:
        return INTERRUPTED


class _Stop(Exception):
    """The command cannot start; the message says why and what to do."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flashsale", description=_ABOUT, epilog=_RUNNING, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"flashsale {version('flashsale')}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_demo(commands)
    _add_worker(commands)
    _add_syncer(commands)
    _add_outbox(commands)
    return parser


# -- demo -----------------------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="run a whole flash sale with a real crowd, and check every number",
        description="Runs a whole flash sale: before, during and after, with a crowd of real processes, a syncer and "
        "a worker. Ends with a settlement in which buyers, Redis and database are asked separately.",
        epilog="Exit code 0 if every number agrees, 1 if not. Needs: pip install 'flashsale[demo]'. Everything it "
        "starts is stopped, everything it writes is removed; on your own servers it uses one sale with a new name.",
    )
    add = parser.add_argument
    add("--buyers", type=_between(1, 1_000_000), default=20_000, metavar="N", help="people in the crowd (20000)")
    add("--units", type=_between(1, 1_000_000), default=1_000, metavar="N", help="units for sale (1000)")
    add("--processes", type=_between(1, 64), default=4, metavar="N", help="processes that the crowd shares (4)")
    add("--seed", type=int, default=1, metavar="N", help="of everything that is random (1)")
    add("--redis", metavar="URL", help="a Redis or Valkey server; default: one of our own, from PATH or a wheel")
    add("--database", metavar="URL", help="an SQLAlchemy URL; default: SQLite in a temporary folder")
    add("--keep", action="store_true", help="leave keys and rows in the servers given by URL, to look at them")
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    try:
        from flashsale.demo import OptionError, Options, run  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        if (error.name or "").startswith("flashsale"):
            raise
        missing = f"{error.name} is not installed" if error.name else str(error)
        raise _Stop(f"{missing}; the demo needs: pip install 'flashsale[demo]'") from error
    given = {name: value for name, value in vars(options).items() if name not in {"command", "run"}}
    try:
        return run(Options(**given))
    except OptionError as error:
        raise _Stop(str(error)) from error


# -- worker, syncer and outbox ----------------------------------------------------------------------------------------


def _add_worker(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "worker",
        help="move accepted orders into the database",
        description="Moves accepted orders from Redis into the database, in batches, each order exactly once. "
        "Run as many as you like.",
        epilog=_RUNNING,
    )
    _add_sale(parser)
    _add_hooks(parser)
    parser.add_argument("--batch", type=_between(1, 1000), default=500, metavar="N", help="orders a transaction (500)")
    parser.add_argument(
        "--lease", type=_seconds, default=30.0, metavar="S", help="seconds until another takes over (30)"
    )
    parser.set_defaults(run=_worker)


def _add_syncer(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "syncer",
        help="bring items and schedules from the database to Redis",
        description="Preloads the items of a sale from the database, opens and closes them by the Redis clock, follows "
        "a restock, expires unpaid orders. Of several, one acts at a time.",
        epilog=_RUNNING,
    )
    _add_sale(parser)
    _add_hooks(parser)
    parser.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between passes (1)")
    parser.set_defaults(run=_syncer)


def _add_outbox(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "outbox",
        help="hand the events of orders to a function of yours",
        description="Hands the events of orders to a function of yours: rejected, confirmed, cancelled, expired; and "
        f"saved, if PERSISTED is among the states in {EVENTS}. At least once, each order's in their sequence. Run up "
        "to 64: they share the orders.",
        epilog=_RUNNING,
    )
    _add_sale(parser)
    add = parser.add_argument
    add("--handler", metavar="PATH", required=True, help="dotted path of a function that takes an Event")
    add("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between reads when nothing is due (1)")
    add("--max-attempts", type=_between(1, 1000), default=10, metavar="N", help="failures until an event is dead (10)")
    parser.set_defaults(run=_outbox)


def _add_sale(parser: argparse.ArgumentParser) -> None:
    environment: Mapping[str, str] = os.environ
    for name, variable, what in (
        ("--redis", REDIS_URL, f"the Redis that holds the stock: {FORMS}"),
        ("--database", DATABASE_URL, "an SQLAlchemy URL: sqlite:///, postgresql://, mysql://"),
    ):
        default = environment.get(variable)
        parser.add_argument(
            name, metavar="URL", default=default, required=not default, help=f"{what} (default: ${variable})"
        )
    parser.add_argument("--sale", metavar="NAME", required=True, help="name of the sale")
    parser.add_argument("--plain-keys", action="store_true", help="the article's bare key names (PlainKeys)")


def _add_hooks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hooks", metavar="PATH", default=os.environ.get(HOOKS), help=f"the shop's OrderHooks (default: ${HOOKS})"
    )


def _worker(options: argparse.Namespace) -> int:
    return _serve(options, "Worker", batch=options.batch, lease=options.lease)


def _syncer(options: argparse.Namespace) -> int:
    return _serve(options, "Syncer", interval=options.interval)


def _outbox(options: argparse.Namespace) -> int:
    sys.path.insert(0, str(Path.cwd()))
    handler = function("handler", options.handler)
    limits = {"interval": options.interval, "max_attempts": options.max_attempts}
    api = flashsale.aio if is_awaited(handler) else flashsale
    return _run(api, options, "Outbox", None, handler, **limits)


def _serve(options: argparse.Namespace, part: str, **settings: Any) -> int:
    """Runs a worker or a syncer until a signal stops it: of the API for which the hooks are written."""
    if os.environ.get(STORE):
        raise _Stop(f"{STORE} is set, and this command knows SQLAlchemyStore only: run a Worker and a Syncer yourself")
    sys.path.insert(0, str(Path.cwd()))  # the shop's package, as other servers find it
    hooks = made("hooks", options.hooks) if options.hooks else None
    api = flashsale.aio if are_awaited(hooks) else flashsale
    return _run(api, options, part, hooks, **settings)


def _run(api: Any, options: argparse.Namespace, part: str, hooks: object, *given: Any, **settings: Any) -> int:
    if api is flashsale.aio:
        asyncio.run(_run_async(options, part, hooks, *given, **settings))
        return 0
    with _store(flashsale, options, hooks) as store, _sale(flashsale, options, store) as sale:
        serve(options.command, sale, getattr(flashsale, part)(sale, *given, **settings).run)
    return 0


async def _run_async(options: argparse.Namespace, part: str, hooks: object, *given: Any, **settings: Any) -> None:
    api = flashsale.aio
    async with _store(api, options, hooks) as store, _sale(api, options, store) as sale:
        await serve_async(options.command, sale, getattr(api, part)(sale, *given, **settings).run)


def _sale(api: Any, options: argparse.Namespace, store: Any) -> Any:
    try:
        client = api.clients.from_url(options.redis)
    except InvalidRequest as error:
        raise _Stop(f"--redis: {error.reason}") from error
    return api.FlashSale(client, options.sale, store=store, keys=PlainKeys() if options.plain_keys else Keys())


def _store(api: Any, options: argparse.Namespace, hooks: object) -> Any:
    try:
        from sqlalchemy import make_url  # noqa: PLC0415 - needs an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        kind = api.stores.SQLAlchemyStore
    except ImportError as error:
        raise _Stop("--database needs SQLAlchemy: pip install 'flashsale[sqlalchemy]', and a driver") from error
    try:
        if make_url(options.database).get_dialect().is_async and api is flashsale:
            raise _Stop("--database: this is a driver for asyncio; name a synchronous one, or none")
        return kind(options.database, options.sale, hooks=hooks, events=os.environ.get(EVENTS, EVENT_STATES))
    except InvalidRequest as error:
        if error.field == "events":
            raise _Stop(f"${EVENTS}: {error.reason}") from error
        raise  # it is the sale's name, or the hooks
    except (SQLAlchemyError, ValueError) as error:  # its text may quote the URL
        raise _Stop(f"--database: not an SQLAlchemy URL of a known kind ({type(error).__name__})") from error
    except ModuleNotFoundError as error:
        raise _Stop(f"--database: its driver is not installed: pip install {error.name}") from error


# -- values ---------------------------------------------------------------------------------------------------------


def _between(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number in {low}..{high}, not {text!r}")
        return value

    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.001 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be seconds in 0.001..86400, not {text!r}")
    return value
