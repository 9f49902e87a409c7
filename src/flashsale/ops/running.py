"""The commands that run until they are stopped: worker, syncer, outbox, exporter, console."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import flashsale
import flashsale.aio
from flashsale._rules.hooks import is_awaited
from flashsale.ops import console
from flashsale.ops.alive import telling
from flashsale.ops.exporter import PORT
from flashsale.ops.exporter import serve as serve_metrics
from flashsale.ops.frame import ATTENTION, NEEDS_ALL, Context, Kind, Outcome, Stop, Verb, refuse_others
from flashsale.ops.named import function
from flashsale.ops.pages import Console
from flashsale.ops.reading import scrape
from flashsale.ops.serving import serve, serve_async
from flashsale.ops.values import between, seconds

LEAST: Final = 60.0  # seconds that a worker or a syncer may stand still
HANDLING: Final = 300.0  # seconds that a handler may take for one event

# -- options --------------------------------------------------------------------------------------------------------


def _add_worker(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--batch", type=between(1, 1000), default=500, metavar="N", help="orders a transaction (500)")
    add("--lease", type=seconds, default=30.0, metavar="S", help="seconds until another takes over (30)")
    _add_health(parser)


def _add_syncer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="S", help="seconds between passes (1)")
    _add_health(parser)


def _add_outbox(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--handler", metavar="PATH", required=True, help="dotted path of a function that takes an Event")
    add("--interval", type=seconds, default=1.0, metavar="S", help="seconds between reads when nothing is due (1)")
    add("--max-attempts", type=between(1, 1000), default=10, metavar="N", help="failures until an event is dead (10)")
    _add_health(parser)


def _add_health(parser: argparse.ArgumentParser) -> None:
    told = (
        "for a supervisor: a file that is replaced each second while the process goes on, or a port that answers 200 "
        "then, else 503 (HOST:PORT; without HOST 127.0.0.1)"
    )
    parser.add_argument("--health", metavar="FILE|PORT", help=told)


def _add_exporter(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=between(1, 65_535), default=PORT, metavar="N", help=f"to listen on ({PORT})")
    add("--address", default="127.0.0.1", metavar="HOST", help="likewise (127.0.0.1); whoever reaches it can read it")


def _add_console(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=between(1, 65_535), default=console.PORT, metavar="N", help=f"to listen on ({console.PORT})")
    add("--address", default="127.0.0.1", metavar="HOST", help="likewise (127.0.0.1); another one wants a password")


# -- running --------------------------------------------------------------------------------------------------------


def _worker(context: Context) -> Outcome:
    options = context.options
    bound = max(LEAST, 2 * options.lease)
    return _run(context, "Worker", bound=bound, batch=options.batch, lease=options.lease)


def _syncer(context: Context) -> Outcome:
    interval = context.options.interval
    return _run(context, "Syncer", bound=LEAST + interval, interval=interval)


def _outbox(context: Context) -> Outcome:
    options = context.options
    sys.path.insert(0, str(Path.cwd()))  # the shop's package, as other servers find it
    handler = function("handler", options.handler)
    limits = {"interval": options.interval, "max_attempts": options.max_attempts}
    bound = HANDLING + LEAST + options.interval
    return _run(context, "Outbox", handler, bound=bound, is_async=is_awaited(handler), **limits)


def _exporter(context: Context) -> Outcome:
    options = context.options
    with context.program.open(options, context.verb) as opened:
        refuse_others(opened.sale)
        try:
            serve_metrics(partial(scrape, opened.sale), options.port, options.address)
        except ImportError as error:
            raise Stop("the exporter needs: pip install 'flashsale[metrics]'") from error
        except OSError as error:
            raise Stop(f"cannot listen on {options.address}:{options.port}: {error}", ATTENTION) from error
    return Outcome()


def _console(context: Context) -> Outcome:
    port, address = context.options.port, context.options.address
    password = os.environ.get(console.PASSWORD, "")
    if not password and not console.is_loopback(address):
        raise Stop(f"--address: {address} can be reached from elsewhere: set ${console.PASSWORD} first")
    context.tell(f"http://{f'[{address}]' if ':' in address else address}:{port}/")
    try:
        console.serve(Console(context), port, address, password)
    except ImportError as error:
        raise Stop("the console needs: pip install 'flashsale[console]'") from error
    except OSError as error:
        raise Stop(f"cannot listen on {address}:{port}: {error}", ATTENTION) from error
    return Outcome()


def _run(context: Context, part: str, *given: Any, bound: float, is_async: bool = False, **settings: Any) -> Outcome:
    """Runs a part of the sale until a signal stops it, of the API for which the hooks or the handler are written.

    Args:
        context: of the command.
        part: Worker, Syncer or Outbox.
        given: its arguments, after the sale.
        bound: seconds that it may stand still.
        is_async: it must be the asyncio API.
        settings: its other arguments.
    """
    name, health = context.verb.name, context.options.health
    with context.program.open(context.options, context.verb, is_async=is_async) as opened:
        refuse_others(opened.sale)
        api, sale = (flashsale, opened.sale) if opened.runner is None else (flashsale.aio, opened.sale._real)
        running = getattr(api, part)(sale, *given, **settings)
        with telling(health, running._activity, bound):
            if opened.runner is None:
                serve(name, sale, running.run)
            else:
                opened.runner.run(serve_async(name, sale, running.run))
    return Outcome()


def verbs(epilog: str = "") -> tuple[Verb, ...]:
    """Returns the commands; `epilog` is what the program has to say about their settings."""
    parts = tuple(
        Verb(name, short, run, add, f"{about}\n{epilog}".rstrip(), kind=Kind.RUN, needs=NEEDS_ALL, is_new=True)
        for name, short, run, add, about in _ALL
    )
    return (*parts, _EXPORTER, _CONSOLE)


_WORKER: Final = """\
Moves accepted orders from Redis into the database, in batches, each order
exactly once. Run as many as you like.
"""

_SYNCER: Final = """\
Preloads the items of a sale from the database, opens and closes them by the
Redis clock, follows a restock, expires unpaid orders. Of several, one acts at a
time.
"""

_OUTBOX: Final = """\
Hands the events of orders to a function of yours: rejected, confirmed,
cancelled, expired; and saved, if PERSISTED is among the states in
FLASHSALE_EVENTS. At least once, each order's in their sequence. Run up to 64:
they share the orders.
"""

_ALL: Final = (
    ("worker", "move accepted orders into the database", _worker, _add_worker, _WORKER),
    ("syncer", "bring items and schedules from the database to Redis", _syncer, _add_syncer, _SYNCER),
    ("outbox", "hand the events of orders to a function of yours", _outbox, _add_outbox, _OUTBOX),
)

_EXPORTER: Final = Verb(
    "exporter",
    "serve the metrics of the sale to Prometheus",
    _exporter,
    _add_exporter,
    "Serves what all processes of the sale have counted, on one page for Prometheus, until it is stopped. One is "
    "enough. Needs: pip install 'flashsale[metrics]'.",
    kind=Kind.RUN,
    is_new=True,
)

_CONSOLE: Final = Verb(
    "console",
    "show the sale on a small page that changes nothing",
    _console,
    _add_console,
    "Serves a small page: status, orders, dead letters, curves, the trail. It changes nothing. With "
    f"${console.PASSWORD} it asks for the user {console.USER!r} and that password. Needs: pip install "
    "'flashsale[console]'.",
    kind=Kind.RUN,
    is_new=True,
)
