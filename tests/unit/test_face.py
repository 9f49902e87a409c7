"""The public API: the names of the contract, in both packages, with the same signatures."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
from typing import Any

import pytest

import flashsale
import flashsale.aio
import flashsale.aio.stores
import flashsale.stores

METHODS = {
    "FlashSale": [
        "preload", "start", "stop", "pause", "resume", "buy", "status", "cancel", "confirm", "close",
    ],
    "Gate": ["preload", "start", "stop", "resize", "schedule", "enter", "leave", "state", "close"],
    "Inventory": ["load_scripts", "preload", "deduct", "release", "stock", "reserve", "close"],
    "OrderQueue": [
        "push", "pop", "claim", "ack", "nack", "extend", "dead", "requeue_dead", "size", "close",
    ],
    "Worker": ["run", "run_once"],
    "Syncer": ["run", "run_once", "audit", "repair", "rebuild"],
}  # fmt: skip

VALUES = [
    "Admission", "Audit", "Claim", "GateState", "Goods", "Order", "OrderState", "Outcome", "PlainKeys", "Receipt",
    "Saved", "Stock", "StoredOrder", "SyncReport",
]  # fmt: skip

ERRORS = {
    "FlashSaleError": Exception,
    "InvalidRequest": ValueError,
    "UnknownGoods": LookupError,
    "AlreadyLoaded": Exception,
    "OrderConflict": Exception,
    "CorruptState": Exception,
    "StoreRequired": Exception,
    "NotPersisted": Exception,
    "NotExecuted": Exception,
    "OutcomeUnknown": Exception,
    "Overloaded": Exception,
    "UnknownLayout": Exception,
    "StoreError": Exception,
}

SIGNATURES = {
    "FlashSale": "(client, sale, *, gate_client=None, gate_replica=None, store=None, keys=None, cache_for=0.05, "
    "max_waiting=10000, observer=None)",
    "FlashSale.preload": "(goods_id, total, *, per_buyer=None, opens_at=None, closes_at=None, hold=None)",
    "FlashSale.buy": "(goods_id, buyer_id, quantity=1, *, order_id=None, data=None)",
    "Gate": "(client, sale, *, replica=None, keys=None, cache_for=0.05)",
    "Gate.schedule": "(goods_id, *, opens_at=None, closes_at=None)",
    "Gate.enter": "(goods_id, quantity=1)",
    "Gate.leave": "(goods_id, quantity=1)",
    "Inventory": "(client, sale, *, keys=None)",
    "Inventory.preload": "(goods_id, total, *, booked=0, per_buyer=None, opens_at=None, closes_at=None)",
    "Inventory.deduct": "(goods_id, quantity=1)",
    "Inventory.release": "(goods_id, quantity=1)",
    "Inventory.reserve": "(orders, *, together=False)",
    "OrderQueue": "(client, sale, *, keys=None)",
    "OrderQueue.pop": "(timeout=None)",
    "OrderQueue.claim": "(limit=100, *, lease=30.0, timeout=1.0)",
    "OrderQueue.nack": "(claims, *, delay=0.0)",
    "OrderQueue.extend": "(claims, *, lease=30.0)",
    "OrderQueue.dead": "(limit=100)",
    "Worker": "(sale, *, batch=500, lease=30.0)",
    "Worker.run": "(stop=None)",
    "Syncer": "(sale, *, interval=1.0)",
    "Syncer.run": "(stop=None)",
    "Syncer.repair": "(*, dry_run=True)",
    "Order": "(order_id, goods_id, buyer_id, quantity, created_at=None, data=None)",
    "Goods": "(goods_id, total, version=0, per_buyer=None, opens_at=None, closes_at=None, hold=None, loaded=False)",
    "Receipt": "(outcome, order_id, goods_id, quantity, remaining, replayed, state)",
    "Claim": "(order, body, attempts, token)",
}


def parameters(thing: Any) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(thing).parameters.values() if each.name != "self"]


def aio_name(name: str) -> str:
    return {"close": "aclose"}.get(name, name)


@pytest.mark.parametrize("package", [flashsale, flashsale.aio], ids=["sync", "aio"])
def test_the_names_of_the_contract_are_exported(package: Any) -> None:
    store = {"OrderStore"} if package is flashsale else {"AsyncOrderStore"}
    wanted = {*METHODS, *VALUES, *ERRORS, *store}
    assert wanted <= set(package.__all__)
    assert list(package.__all__) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None


def test_both_packages_export_the_same_names() -> None:
    ours = {name.removeprefix("Async") for name in flashsale.aio.__all__}
    assert ours == set(flashsale.__all__)
    assert flashsale.stores.__all__ == flashsale.aio.stores.__all__


def test_values_and_errors_are_the_same_on_both_apis() -> None:
    for name in (*VALUES, *ERRORS):
        assert getattr(flashsale, name) is getattr(flashsale.aio, name)


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_the_same_signatures_and_are_awaitable_on_one_api_only(name: str) -> None:
    sync, aio = getattr(flashsale, name), getattr(flashsale.aio, name)
    assert names(sync.__init__) == names(aio.__init__)
    for method in METHODS[name]:
        ours, theirs = getattr(sync, method), getattr(aio, aio_name(method))
        assert names(ours) == names(theirs)
        assert inspect.iscoroutinefunction(theirs)
        assert not inspect.iscoroutinefunction(ours)


def names(thing: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in parameters(thing)]


def test_no_public_method_is_on_one_api_only() -> None:
    for name in METHODS:
        sync, aio = (
            {method for method in dir(getattr(package, name)) if not method.startswith("_")}
            for package in (flashsale, flashsale.aio)
        )
        assert sync == {"close" if method == "aclose" else method for method in aio}


@pytest.mark.parametrize("package", [flashsale, flashsale.aio], ids=["sync", "aio"])
@pytest.mark.parametrize("name", SIGNATURES)
def test_the_contracts_signatures_hold(package: Any, name: str) -> None:
    """What the contract names comes first and as it says; more may follow, by keyword and with a default."""
    thing = package
    for part in name.split("."):
        thing = getattr(thing, part)
    wanted = parameters(eval(f"lambda {SIGNATURES[name][1:-1]}: 0"))
    found = {each.name: each for each in parameters(thing)}
    for each in wanted:
        assert found[each.name].kind in {each.kind, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        if each.default is not inspect.Parameter.empty:
            assert found[each.name].default == each.default
    positional = [each.name for each in wanted if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert list(found)[: len(positional)] == positional
    for extra in found.keys() - {each.name for each in wanted}:
        assert found[extra].default is not inspect.Parameter.empty


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_one_root(name: str) -> None:
    error = getattr(flashsale, name)
    assert issubclass(error, flashsale.FlashSaleError)
    assert issubclass(error, ERRORS[name])


def test_what_may_be_tried_again_says_so_by_its_type() -> None:
    assert issubclass(flashsale.Overloaded, flashsale.NotExecuted)
    assert not issubclass(flashsale.OutcomeUnknown, flashsale.NotExecuted)


def test_outcomes_and_states_are_those_of_the_contract() -> None:
    assert " ".join(flashsale.Outcome) == (
        "ACCEPTED ADMITTED NOT_STARTED ENDED PAUSED SOLD_OUT LIMIT_REACHED UNCERTAIN REJECTED"
    )
    assert " ".join(flashsale.OrderState) == "QUEUED PERSISTED CONFIRMED CANCELLED EXPIRED REJECTED DEAD"


def test_every_public_name_says_what_it_is() -> None:
    for package in (flashsale, flashsale.aio):
        for name in package.__all__:
            assert inspect.getdoc(getattr(package, name)), name


@pytest.mark.parametrize(
    "error",
    [
        flashsale.InvalidRequest("quantity", "must be an int"),
        flashsale.InvalidTicket("has expired"),
        flashsale.OrderConflict(sale="spring", goods_id="phone", order_id="o-1"),
        flashsale.UnknownGoods("unknown goods", sale="spring", goods_id="phone"),
        flashsale.OutcomeUnknown("no reply", order_id="o-1"),
        flashsale.NotExecuted("Redis refused: OOM", order_id="o-1", reason="OOM"),
        flashsale.Overloaded(7),
        flashsale.UnknownLayout(3, 1, 2),
        flashsale.StoreRequired("a worker"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_reaches_another_process_whole(error: flashsale.FlashSaleError) -> None:
    """As those of a task queue or a process pool do, that would else never say what happened."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), error._copy()):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_an_order_is_frozen_and_so_are_answers() -> None:
    order = flashsale.Order("o", "phone", "ann", 1)
    with pytest.raises(AttributeError):
        order.quantity = 2
    receipt = flashsale.Receipt(flashsale.Outcome.SOLD_OUT, "o", "phone", 1, 0)
    with pytest.raises(AttributeError):
        receipt.remaining = 5


def test_the_modules_of_the_contract_are_there() -> None:
    for name in [
        "clients",
        "keys",
        "errors",
        "model",
        "lua",
        "stores",
        "testing",
        "web",
        "aio.clients",
        "aio.stores",
        "testing.strategies",
    ]:
        importlib.import_module(f"flashsale.{name}")
