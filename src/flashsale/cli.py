"""The command `flashsale`: everything an operator does, the processes that every real sale needs, and the demo.

Demo and stores are imported only by the commands that use them: they need extras.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import flashsale
import flashsale.aio
import flashsale.aio.clients
import flashsale.aio.stores
import flashsale.clients
import flashsale.stores
from flashsale._rules.hooks import are_awaited
from flashsale._rules.partitions import MAX_PARTITIONS
from flashsale._rules.rows import EVENT_STATES
from flashsale._rules.urls import DATABASE_URL, FORMS, REDIS_URL
from flashsale.errors import InvalidRequest
from flashsale.keys import Keys, PlainKeys
from flashsale.ops import command, running
from flashsale.ops.completion import add_completion
from flashsale.ops.frame import Context, Kind, Outcome, Stop, Verb
from flashsale.ops.named import made
from flashsale.ops.opening import Blocking, Opened
from flashsale.ops.values import between
from flashsale.ops.verbs import VERBS

SALE: Final = "FLASHSALE_SALE"
GATE_URL: Final = "FLASHSALE_GATE_URL"
HOOKS: Final = "FLASHSALE_HOOKS"
EVENTS: Final = "FLASHSALE_EVENTS"
STORE: Final = "FLASHSALE_STORE"
PARTITIONS: Final = "FLASHSALE_PARTITIONS"

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
{SALE} stands in for --sale, {GATE_URL} for --gate-redis,
{PARTITIONS} for --partitions: give it to every process of such a
sale. Independent primaries for them are several URLs in --redis, with blanks or
commas between, everywhere in the same order.
{HOOKS}, a dotted path, stands in for --hooks: give worker and syncer
the same hooks as the shop, or their steps are left out. They may be async.
{EVENTS} names the states that leave an event for the outbox; set it
alike for all that write orders: shop, worker and syncer.
"""

_URLS: Final = "\n".join(f"  {form}" for form in FORMS.split(", "))

_HELP: Final = f"""\
{_RUNNING}
A Redis is named by one of these; a database by SQLAlchemy's URL:
{_URLS}

Commands that change something show it first; --dry-run shows it alone. Those
that may do harm ask for the name of the sale, and in scripts want --yes. Each
leaves a line in the trail: who, when, what, why.

{command.EXIT_CODES}
'flashsale COMMAND --help' lists the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the process' exit code, as `--help` lists them."""
    program = ByUrls()
    parser = command.build(program, [_DEMO, *running.verbs(_RUNNING), *VERBS], description=_ABOUT, epilog=_HELP)
    parser.add_argument("--version", action="version", version=f"flashsale {version('flashsale')}")
    add_completion(parser)
    return command.run(parser, program, argv)


_WHERE: Final = (
    ("--redis", REDIS_URL, "Redis of the stock", "URL"),
    ("--gate-redis", GATE_URL, "Redis of the gate, if another", "URL"),
    ("--partitions", PARTITIONS, "how many it has", "N"),
    ("--database", DATABASE_URL, "SQLAlchemy URL", "URL"),
    ("--sale", SALE, "its name", "NAME"),
)


# -- the sale -------------------------------------------------------------------------------------------------------


class ByUrls:
    """Opens a sale by URLs, from options or from the environment."""

    prog = "flashsale"

    def add(self, parser: argparse.ArgumentParser, verb: Verb) -> None:
        """Adds the options that say where the sale is."""
        if verb is _DEMO:
            return
        group = parser.add_argument_group("the sale")
        for option, variable, what, metavar in _WHERE:
            default, needed = os.environ.get(variable), option.removeprefix("--") in verb.needs
            told = f"{what} (${variable})"
            kind = between(1, MAX_PARTITIONS) if option == "--partitions" else None
            given: dict[str, Any] = {"metavar": metavar, "default": default, "type": kind, "help": told}
            group.add_argument(option, required=needed and not default, **given)
        group.add_argument("--plain-keys", action="store_true", help="the article's bare key names (PlainKeys)")
        if verb.kind is not Kind.LOOK and "sale" in verb.needs and verb.name not in {"outbox", "exporter", "console"}:
            told = f"the shop's OrderHooks (${HOOKS})"
            group.add_argument("--hooks", metavar="PATH", default=os.environ.get(HOOKS), help=told)

    def open(self, options: argparse.Namespace, verb: Verb, *, is_async: bool = False) -> Opened:
        """Opens the sale; of the API for which the hooks are written."""
        if os.environ.get(STORE) and options.database:
            advice = "run a Worker and a Syncer yourself, or use manage.py flashsale or flask flashsale"
            raise Stop(f"{STORE} is set, and this command knows SQLAlchemyStore only: {advice}")
        hooks = _hooks(options)
        if not is_async and not are_awaited(hooks):
            store = _store(flashsale, options, hooks)
            sale = _sale(flashsale, options, store) if "redis" in verb.needs else None
            closes = tuple(each.close for each in (sale, store) if each is not None)
            return Opened(_name(options), sale, store, closes=closes)
        runner = asyncio.Runner()
        return runner.run(_open_async(options, hooks, runner))


async def _open_async(options: argparse.Namespace, hooks: object, runner: asyncio.Runner) -> Opened:
    store = _store(flashsale.aio, options, hooks)
    sale = _sale(flashsale.aio, options, store)
    seen = [None if each is None else Blocking(each, runner) for each in (sale, store)]
    closes = tuple(each.aclose for each in seen if each is not None)
    return Opened(_name(options), seen[0], seen[1], runner, closes)


def _name(options: argparse.Namespace) -> str:
    return options.sale or "none"  # `init` makes the tables of all sales


def _hooks(options: argparse.Namespace) -> object:
    path = getattr(options, "hooks", None)
    if not path:
        return None
    sys.path.insert(0, str(Path.cwd()))  # the shop's package, as other servers find it
    return made("hooks", path)


def _sale(api: Any, options: argparse.Namespace, store: Any) -> Any:
    gate = options.gate_redis and _client("--gate-redis", api.clients.from_url, options.gate_redis)
    keys = PlainKeys() if options.plain_keys else Keys()
    client = _client("--redis", api.clients.from_urls, options.redis)
    partitions = options.partitions or 1
    settings = {"gate_client": gate or None, "store": store, "keys": keys, "partitions": partitions}
    try:
        return api.FlashSale(client, options.sale, **settings)
    except InvalidRequest as error:
        option = _OPTIONS.get(error.field)
        raise Stop(f"{option}: {error.reason}") if option else error from error


_OPTIONS: Final = {"client": "--redis", "gate_client": "--gate-redis", "keys": "--plain-keys"}


def _client(option: str, make: Callable[[str], Any], urls: str) -> Any:
    try:
        return make(urls)
    except InvalidRequest as error:
        raise Stop(f"{option}: {error.reason}") from error


def _store(api: Any, options: argparse.Namespace, hooks: object) -> Any:
    if not options.database:
        return None
    try:
        from sqlalchemy import make_url  # noqa: PLC0415 - needs an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        kind = api.stores.SQLAlchemyStore
    except ImportError as error:
        raise Stop("--database needs SQLAlchemy: pip install 'flashsale[sqlalchemy]', and a driver") from error
    try:
        if make_url(options.database).get_dialect().is_async and api is flashsale:
            raise Stop("--database: this is a driver for asyncio; name a synchronous one, or none")
        return kind(options.database, _name(options), hooks=hooks, events=os.environ.get(EVENTS, EVENT_STATES))
    except InvalidRequest as error:
        if error.field == "events":
            raise Stop(f"${EVENTS}: {error.reason}") from error
        raise  # it is the sale's name, or the hooks
    except (SQLAlchemyError, ValueError) as error:  # its text may quote the URL
        raise Stop(f"--database: not an SQLAlchemy URL of a known kind ({type(error).__name__})") from error
    except ModuleNotFoundError as error:
        raise Stop(f"--database: its driver is not installed: pip install {error.name}") from error


# -- demo -----------------------------------------------------------------------------------------------------------


def _add_demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--buyers", type=between(1, 1_000_000), default=20_000, metavar="N", help="people in the crowd (20000)")
    add("--units", type=between(1, 1_000_000), default=1_000, metavar="N", help="units for sale (1000)")
    add("--processes", type=between(1, 64), default=4, metavar="N", help="processes that the crowd shares (4)")
    add("--seed", type=int, default=1, metavar="N", help="of everything that is random (1)")
    add("--redis", metavar="URL", help="a Redis or Valkey server; default: one of our own, from PATH or a wheel")
    add("--database", metavar="URL", help="an SQLAlchemy URL; default: SQLite in a temporary folder")
    add("--keep", action="store_true", help="leave keys and rows in the servers given by URL, to look at them")


def _demo(context: Context) -> Outcome:
    try:
        from flashsale.demo import OptionError, Options, run  # noqa: PLC0415 - needs the extra
    except ImportError as error:
        if (error.name or "").startswith("flashsale"):
            raise
        missing = f"{error.name} is not installed" if error.name else str(error)
        raise Stop(f"{missing}; the demo needs: pip install 'flashsale[demo]'") from error
    given = {name: value for name, value in vars(context.options).items() if name in context.options.asked}
    try:
        return Outcome(code=run(Options(**given)))
    except OptionError as error:
        raise Stop(str(error)) from error


_DEMO: Final = Verb(
    "demo",
    "run a whole flash sale with a real crowd, and check every number",
    _demo,
    _add_demo,
    """\
Runs a whole flash sale: before, during and after, with a crowd of real
processes, a syncer and a worker. Ends with a settlement in which buyers, Redis
and database are asked separately.

Exit code 0 if every number agrees, 1 if not. Needs: pip install
'flashsale[demo]'. Everything it starts is stopped, everything it writes is
removed; on your own servers it uses one sale with a new name.
""",
    kind=Kind.RUN,
    needs=frozenset(),
    is_new=True,
)
