"""The adapter for FastAPI and Starlette: a lifespan, a dependency, and problem bodies for the sale's errors.

    sales = FastAPISale(os.environ)
    app = FastAPI(lifespan=sales.lifespan)
    sales.install(app)
    Sale = Annotated[FlashSale, Depends(sales)]

    @app.post("/buy/{goods_id}")
    async def buy(goods_id: str, order_id: str, buyer: Buyer, sale: Sale) -> Response:
        receipt = await sale.buy(goods_id, buyer.id, order_id=order_id)
        return await sales.answer(receipt, location=f"/orders/{receipt.order_id}")

A test puts its own sale in, without the lifespan: `sales.sale = sale`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from flashsale import FlashSaleError, Observer, Outcome, Receipt, web
from flashsale.aio import AsyncOrderStore, FlashSale
from flashsale.contrib import refuse
from flashsale.contrib.settings import PREFIX, Settings


def sqlalchemy_store(settings: Settings) -> AsyncOrderStore | None:
    """Returns a store on `FLASHSALE_DATABASE_URL`, or None without one."""
    if not settings.database_url:
        return None
    from flashsale.aio.stores import SQLAlchemyStore  # noqa: PLC0415 - needs an extra

    return SQLAlchemyStore(settings.database_url, settings.sale)


class FastAPISale:
    """The sale of one process and event loop, opened and closed with the app.

    Args:
        config: names and values of the settings, such as `os.environ`.
        store: makes the host's own `AsyncOrderStore`, closed with the app if it has an `aclose`; by default
            `SQLAlchemyStore` on `FLASHSALE_DATABASE_URL`.
        observer: metrics and tracing.
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
        store: Callable[[Settings], AsyncOrderStore | None] = sqlalchemy_store,
        observer: Observer | None = None,
        prefix: str = PREFIX,
    ) -> None:
        self.settings = Settings.read(config, prefix)
        self._store = store
        self._observer = observer
        self.sale: FlashSale | None = None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - what FastAPI passes
        """Opens the sale when the app starts, and closes it when it ends, with the store that was made for it."""
        async with AsyncExitStack() as stack:
            store = self._store(self.settings)
            if close := getattr(store, "aclose", None):
                stack.push_async_callback(close)
            self.sale = await stack.enter_async_context(self.settings.open_async(store, self._observer))
            stack.callback(setattr, self, "sale", None)
            yield

    async def __call__(self, request: Request) -> FlashSale:  # noqa: ARG002 - what Depends passes
        """Returns the sale: the dependency."""
        if self.sale is None:
            raise RuntimeError("the sale is not open: FastAPI(lifespan=sales.lifespan)")
        return self.sale

    def install(self, app: Starlette) -> None:
        """Answers the sale's errors as problems."""
        app.add_exception_handler(FlashSaleError, _refuse)

    async def answer(self, receipt: Receipt, *, location: str) -> Response:
        """Returns the response to a purchase; one that came too early gets a `Retry-After`."""
        opens_in = None
        if receipt.outcome is Outcome.NOT_STARTED and self.sale is not None:
            opens_in = (await self.sale.view(receipt.goods_id)).opens_in
        return response(web.answer(receipt, location=location, opens_in=opens_in))


def response(reply: web.Reply) -> Response:
    """Returns the reply as a response of Starlette."""
    return Response(reply.body, reply.status, reply.headers)


async def _refuse(request: Request, error: Exception) -> Response:  # noqa: ARG001 - what Starlette passes
    assert isinstance(error, FlashSaleError)
    return response(refuse(error))
