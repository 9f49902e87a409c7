"""The adapter for FastAPI and Starlette: a lifespan, a dependency, and problem bodies for the sale's errors.

    sales = FastAPISale(os.environ)
    app = FastAPI(lifespan=sales.lifespan)
    sales.install(app)  # after other middleware
    Sale = Annotated[FlashSale, Depends(sales)]

    @app.post("/buy/{goods_id}")
    async def buy(goods_id: str, order_id: str, user: User, sale: Sale) -> Response:
        receipt = await sale.buy(goods_id, buyer_id(user.id), order_id=order_id)
        return await sales.answer(receipt, location=f"/orders/{receipt.order_id}")

A test puts its own sale in, without the lifespan: `sales.sale = sale`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashsale import FlashSaleError, Observer, Outcome, Receipt, web
from flashsale.aio import AsyncOrderStore, FlashSale
from flashsale.contrib.announced import Announced
from flashsale.contrib.settings import PREFIX, Settings


def sqlalchemy_store(settings: Settings) -> AsyncOrderStore | None:
    """Returns a store on `FLASHSALE_DATABASE_URL` with `FLASHSALE_HOOKS`, or None without a URL."""
    hooks = settings.load_hooks()
    if not settings.database_url:
        return None
    from flashsale.aio.stores import SQLAlchemyStore  # noqa: PLC0415 - needs an extra

    return SQLAlchemyStore(settings.database_url, settings.sale, hooks=hooks, events=settings.events)


class FastAPISale:
    """The sale of one process and event loop, opened and closed with the app.

    Args:
        config: names and values of the settings, such as `os.environ`.
        store: makes the host's own `AsyncOrderStore` of the settings, closed with the app if it has an `aclose`; by
            default `FLASHSALE_STORE`, else a `SQLAlchemyStore` on `FLASHSALE_DATABASE_URL`. One that takes hooks gives
            it those of `settings.load_hooks()`.
        hooks: the host's steps in the store's transactions, `async def`; by default `FLASHSALE_HOOKS`.
        observer: metrics and tracing; by default `FLASHSALE_OBSERVER`.
        prefix: of the settings' names, when an app has several sales.

    Attributes:
        sale: while the app runs; a test may put its own here.

    Raises:
        InvalidRequest: a setting is missing or not valid.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        store: Callable[[Settings], AsyncOrderStore | None] | None = None,
        hooks: object = None,
        observer: Observer | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self.settings = Settings.read(config, prefix).using(store=store, hooks=hooks, observer=observer)
        self._announced = Announced()
        self.sale: FlashSale | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - what FastAPI passes
        """Opens the sale when the app starts, and closes it when it ends, with the store that was made for it."""
        async with AsyncExitStack() as stack:
            store = self.settings.make_store(sqlalchemy_store)
            if close := getattr(store, "aclose", None):
                stack.push_async_callback(close)
            self.sale = await stack.enter_async_context(self.settings.open_async(store))
            stack.callback(setattr, self, "sale", None)
            yield

    async def __call__(self, request: Request) -> FlashSale:  # noqa: ARG002 - what Depends passes
        """Returns the sale: the dependency."""
        if self.sale is None:
            raise RuntimeError("the sale is not open: FastAPI(lifespan=sales.lifespan)")
        return self.sale

    def install(self, app: Starlette) -> None:
        """Answers the sale's errors as problems, and adds `NoSharedCookies`: call it after other `add_middleware`."""
        app.add_exception_handler(FlashSaleError, self._refuse)
        app.add_middleware(NoSharedCookies)

    async def refuse(self, error: FlashSaleError) -> Response:
        """Returns the response to a call that failed; what `install` answers with."""
        return response(await self._announced.refuse_async(error, self.sale.store if self.sale else None))

    async def _refuse(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - what Starlette passes
        assert isinstance(error, FlashSaleError)
        return await self.refuse(error)

    async def answer(self, receipt: Receipt, *, location: str) -> Response:
        """Returns the response to a purchase; one that came too early gets a `Retry-After`."""
        opens_in = None
        if receipt.outcome is Outcome.NOT_STARTED and self.sale is not None:
            opens_in = (await self.sale.view(receipt.goods_id)).opens_in
        return response(web.answer(receipt, location=location, opens_in=opens_in))


class NoSharedCookies:
    """Takes cookies off answers that a shared cache may keep: a middleware, the outermost one, so added last.

    Starlette's `SessionMiddleware` before 1.0 sets its cookie on every answer to a visitor with a session, also on the
    public page; the next visitor would get that session out of the cache.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on."""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if web.is_shared(", ".join(headers.getlist("Cache-Control"))):
                    del headers["Set-Cookie"]
            await send(message)

        await self._app(scope, receive, sent)


def response(reply: web.Reply) -> Response:
    """Returns the reply as a response of Starlette."""
    return Response(reply.body, reply.status, reply.headers)
