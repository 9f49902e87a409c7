"""`put_goods` on an item that has a row: what is left out stays, unless it is to be replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flashsale import Goods, InvalidRequest
from tests.support import django_shop
from tests.support.helpers import inside, settled

django_shop.set_up()

from flashsale.contrib.django.store import DjangoStore  # noqa: E402 - settings come first

if TYPE_CHECKING:
    from tests.support.helpers import Shop

WHOLE = Goods("phone", 10, per_buyer=2, opens_at=100.5, closes_at=200.5, hold=900.0)


async def read(store: Any) -> Goods:
    (goods,) = await settled(store.goods())
    return replace(goods, version=0)


async def what_is_left_out_stays(store: Any) -> None:
    await settled(store.put_goods(WHOLE))
    await settled(store.put_goods(Goods("phone", 12)))
    assert await read(store) == replace(WHOLE, total=12)
    await settled(store.put_goods(Goods("phone", 12, per_buyer=1, closes_at=300.5)))
    assert await read(store) == replace(WHOLE, total=12, per_buyer=1, closes_at=300.5)
    with pytest.raises(InvalidRequest):  # it would end before it opens
        await settled(store.put_goods(Goods("phone", 5, closes_at=50.0)))
    assert (await read(store)).total == 12
    await settled(store.put_goods(Goods("phone", 3), replace=True))
    assert await read(store) == Goods("phone", 3)
    (goods,) = await settled(store.goods())
    assert goods.version == 3


async def test_what_is_left_out_stays(real_shop: Shop) -> None:
    await what_is_left_out_stays((await real_shop.store()).real)


def test_what_is_left_out_stays_in_django() -> None:
    with pytest.raises(StopIteration):  # to its end, without the event loop that Django refuses
        what_is_left_out_stays(DjangoStore("put-goods")).send(None)


async def test_without_the_row_it_would_be_wiped(real_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside(real_shop.api, "stores.base"), "completed", lambda goods, _: goods)
    with pytest.raises(AssertionError):
        await what_is_left_out_stays((await real_shop.store()).real)
