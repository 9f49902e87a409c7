"""The adapter for Flask: an extension with the sale of this process, problem bodies, and `flask flashsale` commands.

    sales = FlaskSale()

    def create_app():
        app = Flask(__name__)
        app.config.from_prefixed_env()  # FLASK_FLASHSALE_SALE and so on
        sales.init_app(app)
        return app

    @app.post("/buy/<goods_id>")
    def buy(goods_id):
        receipt = sales.sale.buy(goods_id, buyer_id(current_user.id), order_id=request.form["order_id"])
        return sales.answer(receipt, location=url_for("order", order_id=receipt.order_id))

A test puts its own sale in: `sales.sale = sale`, in the app's context.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import click
from flask import Flask, Response, current_app
from flask.cli import AppGroup, with_appcontext
from werkzeug.datastructures import Headers

from flashsale import (
    FlashSale,
    FlashSaleError,
    Observer,
    OrderStore,
    Outcome,
    Receipt,
    UnknownGoods,
    web,
)
from flashsale.contrib.announced import Announced
from flashsale.contrib.settings import PREFIX, Settings
from flashsale.ops import command, running
from flashsale.ops.frame import Stop, Verb
from flashsale.ops.opening import Opened
from flashsale.ops.verbs import VERBS

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

NAME: Final = "flashsale"  # in app.extensions


def sqlalchemy_store(settings: Settings) -> OrderStore | None:
    """Returns a store on `FLASHSALE_DATABASE_URL` with `FLASHSALE_HOOKS`, or None without a URL."""
    hooks = settings.load_hooks()
    if not settings.database_url:
        return None
    from flashsale.stores import SQLAlchemyStore  # noqa: PLC0415 - needs an extra

    return SQLAlchemyStore(settings.database_url, settings.sale, hooks=hooks, events=settings.events)


class _State:
    """The settings of one app, and the sale of this process, which is made at the first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.announced = Announced()
        self._lock = threading.Lock()
        self._process = 0
        self._chosen: FlashSale | None = None
        self._sale: FlashSale | None = None

    def put(self, sale: FlashSale) -> None:
        self._chosen = sale  # of children that are forked, too

    def sale(self) -> FlashSale:
        if self._chosen is not None:
            return self._chosen
        if self._process != os.getpid():  # first use, or a child of a server that forks: database connections do not
            with self._lock:
                if self._process != os.getpid():
                    self._sale = self.settings.open(self.settings.make_store(sqlalchemy_store))
                    self._process = os.getpid()
        assert self._sale is not None
        return self._sale


class FlaskSale:
    """The extension.

    Args:
        app: the app; or call `init_app` later.
        store: makes the host's own `OrderStore` of the settings; by default `FLASHSALE_STORE`, else a `SQLAlchemyStore`
            on `FLASHSALE_DATABASE_URL`. One that takes hooks gives it those of `settings.load_hooks()`.
        hooks: the host's steps in the store's transactions; by default `FLASHSALE_HOOKS`.
        observer: metrics and tracing; by default `FLASHSALE_OBSERVER`.
        prefix: of the settings' names, when an app has several sales.

    The web processes and the commands `flask flashsale ...` make the same sale, with the same hooks.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        store: Callable[[Settings], OrderStore | None] | None = None,
        hooks: object = None,
        observer: Observer | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self._given = {"store": store, "hooks": hooks, "observer": observer}
        self._prefix = prefix
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Reads the settings, answers errors of the sale as problems, and adds the commands.

        An answer that a shared cache may keep loses its cookies: Flask sets that of a permanent session on each one.

        Raises:
            InvalidRequest: a setting is missing or not valid.
        """
        settings = Settings.read(app.config, self._prefix).using(**self._given)
        app.extensions.setdefault(NAME, {})[self._prefix] = _State(settings)
        app.register_error_handler(FlashSaleError, _refuse)
        app.wsgi_app = _no_shared_cookies(app.wsgi_app)  # type: ignore[method-assign,assignment]  # Flask's own way
        name = self._prefix.lower().rstrip("_")
        app.cli.add_command(_commands(name, self))

    @property
    def sale(self) -> FlashSale:
        """The sale of the current app, in this process; a test may put its own here."""
        return self._state.sale()

    @sale.setter
    def sale(self, sale: FlashSale) -> None:
        self._state.put(sale)

    @property
    def _state(self) -> _State:
        state: _State = current_app.extensions[NAME][self._prefix]
        return state

    def answer(self, receipt: Receipt, *, location: str) -> Response:
        """Returns the response to a purchase; one that came too early gets a `Retry-After`."""
        opens_in = None
        if receipt.outcome is Outcome.NOT_STARTED:
            opens_in = self.sale.view(receipt.goods_id).opens_in
        return response(web.answer(receipt, location=location, opens_in=opens_in))

    def fragment(self, goods_id: str) -> Response:
        """Returns the status fragment of one item."""
        return response(web.fragment(self.sale.view(goods_id)))


def response(reply: web.Reply) -> Response:
    """Returns the reply as a response of Flask."""
    return Response(reply.body, reply.status, reply.headers)


def _refuse(error: FlashSaleError) -> Response:
    """Answers an error of any sale of the app; one about an item says which sale it is."""
    states: list[_State] = list(current_app.extensions[NAME].values())
    name = getattr(error, "sale", None)
    state = next((each for each in states if each.settings.sale == name), states[0])
    return response(state.announced.refuse(error, state.sale().store if isinstance(error, UnknownGoods) else None))


def _no_shared_cookies(app: WSGIApplication) -> WSGIApplication:
    """Returns the app without cookies on answers that a shared cache may keep: they would be every visitor's."""

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            kept = Headers(headers)
            if web.is_shared(", ".join(kept.getlist("Cache-Control"))):
                kept.remove("Set-Cookie")
            return start_response(status, kept.to_wsgi_list(), *error)

        return app(environ, started)

    return answered


def _commands(name: str, extension: FlaskSale) -> AppGroup:
    group = AppGroup(name, help="Run and look after the flash sale.")

    @group.command()
    def check() -> None:
        """Check the Redis servers' settings; exit code 1 if something does not suit a sale."""
        findings = extension.sale.check()
        for finding in findings:
            click.echo(finding)
        raise SystemExit(1 if findings else 0)

    for verb in _verbs():
        first = verb.name.partition(" ")[0]
        if first not in group.commands:
            group.add_command(_passed_on(first, verb, _OfFlask(name, extension)))
    return group


def _verbs() -> tuple[Verb, ...]:
    return (*running.verbs(), *VERBS)


class _OfFlask:
    """Opens the sale of the app."""

    def __init__(self, name: str, extension: FlaskSale) -> None:
        self.prog = f"flask {name}"
        self._extension = extension

    def add(self, parser: argparse.ArgumentParser, verb: Verb) -> None:
        """Adds nothing: the app has the settings."""

    def open(self, options: argparse.Namespace, verb: Verb, *, is_async: bool = False) -> Opened:  # noqa: ARG002
        """Returns the sale of this process, which stays open."""
        if is_async:
            raise Stop("--handler: it is async: run a flashsale.aio.Outbox yourself")
        sale = self._extension.sale
        return Opened(sale.name, sale, sale.store)


def _passed_on(first: str, verb: Verb, program: _OfFlask) -> click.Command:
    """Returns a command that passes its words on to the operator's commands."""

    @with_appcontext
    def run(words: tuple[str, ...]) -> None:
        parser = command.build(program, _verbs(), epilog=command.EXIT_CODES)
        raise SystemExit(command.run(parser, program, [first, *words]))

    words = click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)
    told = verb.help if verb.name == first else command.GROUPS[first]
    settings = {"ignore_unknown_options": True}
    return click.Command(
        first, callback=run, params=[words], help=f"{told}.", add_help_option=False, context_settings=settings
    )
