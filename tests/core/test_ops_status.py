"""`status`: one screen for a sale, and its exit code for scripts."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flashsale import Goods
from flashsale._rules.activity import Activity, instance
from flashsale.model.snapshot import Histogram, Totals
from flashsale.ops.status import database

if TYPE_CHECKING:
    from tests.support.operator import Operator


def works(operator: Operator, *kinds: str) -> None:
    """Lets processes of these kinds tell that they run."""
    for kind in kinds:
        operator.sale._recorder._flush(Activity(kind))


def test_a_sale_that_is_well_says_so(operator: Operator) -> None:
    operator.begin(Goods("phone", 10, hold=900.0), Goods("case", 5))
    operator.sale.start("phone")
    works(operator, "worker", "syncer")
    for number in range(3):
        operator.buy(f"o-{number}")
    operator.worker.run_once()
    operator.buy("o-9", "bob", 2)
    told = operator("status")
    assert told.code == 0, told
    head, titles, case, phone, queue, leader, redis = told.out.splitlines()
    assert head.startswith("spring  SELLING  ")
    assert head.endswith("   10 of 10 checks ok")
    assert titles.split() == ["goods", "total", "booked", "free", "sold/s", "refused/s", "gone", "in"]
    assert case.split()[:4] == ["case", "5", "0", "5"]
    assert phone.split()[:4] == ["phone", "10", "5", "5"]
    assert queue.startswith("queued 1 (on the list 1, oldest ")
    assert queue.endswith(" s, claimed 0)  dead 0  unpaid 3")
    assert leader == f"leader  {instance()}  workers 1"
    assert redis.startswith("redis   ")


def test_the_time_of_the_database_is_that_of_the_last_minutes(operator: Operator) -> None:
    operator.begin()
    keys, now = operator.sale.keys, int(operator.sale._ledger.time()) // 60
    for minute, bucket in ((now - 1, "5"), (now - 7, "12")):
        operator.raw.hset(keys.stats_of(minute), f":store|save|{bucket}", 20)
        operator.raw.zadd(keys.minutes, {str(minute): minute})
        operator.raw.hset(keys.stats, f":store|save|{bucket}", 20)
    assert "database save p95 under 250 ms" in operator("status").out
    operator.raw.delete(keys.stats_of(now - 1))
    assert "database save" not in operator("status").out


def test_a_syncer_that_has_led_long_ago_is_no_leader(operator: Operator) -> None:
    operator.begin()
    works(operator, "worker")
    operator.raw.hset(operator.sale.keys.meta, "leader_until", operator.sale._ledger.time() - 6)
    assert "leader  none  workers 1" in operator("status").out


def test_a_leader_that_is_silent_is_told_of(operator: Operator) -> None:
    """Its lease goes on for a while, and nobody else leads meanwhile."""
    operator.begin()
    at = float(operator.raw.time()[0])
    operator.sale._meta.lead(f"{instance()}:token", 30.0)
    operator.sale._recorder._flush(Activity("syncer"))
    text = operator.raw.hget(operator.sale.keys.processes, f"syncer {instance()}").decode()
    old = "|".join([str(at - 20), *text.split("|")[1:]])
    operator.raw.hset(operator.sale.keys.processes, f"syncer {instance()}", old)
    assert re.search(r"leader  \S+, silent for 2\d s: another leads when its lease ends", operator("status").out)


def test_the_lease_that_the_orders_of_a_silent_worker_share_is_read(operator: Operator) -> None:
    operator.begin()
    for name in ("o-1", "o-2", "o-3"):
        operator.buy(name)
    activity = Activity("worker")
    activity.hold(operator.sale.queue.claim(3, lease=300.0))
    operator.sale._recorder._flush(activity)
    name, keys = f"worker {instance()}", operator.sale.keys
    beat, rest = operator.raw.hget(keys.processes, name).decode().split("|", 1)
    operator.raw.hset(keys.processes, name, f"{float(beat) - 47}|{rest}")
    assert re.search(r"takes 3 of them at [\d:]+ \(in [45] min.*\) at the latest", operator("status").out)


def test_a_silent_worker_counts_as_silent_and_its_leases_are_read(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    activity = Activity("worker")
    activity.hold(operator.sale.queue.claim(1, lease=300.0))
    with contextlib.suppress(ValueError), activity.doing("save"):
        raise ValueError
    operator.sale._recorder._flush(activity)
    name, keys = f"worker {instance()}", operator.sale.keys
    beat, rest = operator.raw.hget(keys.processes, name).decode().split("|", 1)
    operator.raw.hset(keys.processes, name, f"{float(beat) - 47}|{rest}")
    told = operator("status").out
    assert re.search(rf"! SILENT  {name} silent since [\d:]+ \(4\d s ago\), held 1 then\. Another worker takes", told)
    assert re.search(r"takes 1 of them at [\d:]+ \(in [45] min.*\) at the latest", told)
    assert "workers 0, silent 1" in told
    assert "queued 1 (on the list 0, claimed 1)" in told
    (process,) = operator("status", "--json").json["look"]["processes"]
    assert process["last_error"] == "ValueError"
    assert process["failed_at"] <= process["beat"]
    told = operator("doctor")
    assert (told.code, f"! processes: {name} silent since " in told.out) == (1, True)


def test_what_is_wrong_is_named_and_is_the_exit_code(operator: Operator) -> None:
    operator.begin()
    operator.buy("o-1")
    operator.bury("o-1")
    told = operator("status")
    assert told.code == 1
    assert "   8 of 10 checks ok, 2 need attention\n" in told.out
    assert "! DEAD LETTERS  1: `flashsale dead list` says why" in told.out
    assert "! NO SYNCER" in told.out
    seen = operator("status", "--json").json
    assert [each["name"] for each in seen["attention"]] == ["DEAD LETTERS", "NO SYNCER"]
    assert (seen["state"], seen["look"]["dead"]) == ("SELLING", 1)


def test_an_item_that_redis_has_lost_is_named(operator: Operator) -> None:
    operator.begin()
    works(operator, "worker", "syncer")
    keys = operator.sale.keys
    operator.raw.srem(keys.goods, "phone")
    assert "! GOODS MISSING  Redis has lost phone: `flashsale rebuild`" in operator("status").out


def test_without_the_database_it_says_what_redis_knows(operator: Operator) -> None:
    operator.begin()
    works(operator, "worker", "syncer")
    told = operator("status", "--redis", operator.redis_url, "--sale", "spring", where=False)
    assert (told.code, "spring  SELLING" in told.out) == (0, True)
    assert "   8 of 8 checks ok\n" in told.out


def test_without_redis_nobody_can_tell(operator: Operator) -> None:
    operator.begin()
    assert operator("status", "--redis", "redis://127.0.0.1:1", "--sale", "spring", where=False).code == 3


def test_watching_shows_it_again_and_again(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    operator.begin()
    seen: list[float] = []

    def slept(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("flashsale.ops.status.time.sleep", slept)
    told = operator("status", "--watch", "0.5")
    assert (told.code, told.out.count("spring  SELLING"), seen) == (130, 3, [0.5] * 3)


def test_status_loads_no_library_that_it_does_not_need(operator: Operator) -> None:
    operator.begin()
    words = ["status", "--redis", operator.redis_url, "--sale", "spring"]
    code = f"import sys; from flashsale.cli import main; main({words}); print(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "spring  SELLING" in ran.stdout
    assert not {"sqlalchemy", "rich", "django", "jinja2", "prometheus_client", "http.server"} & {*ran.stderr.split()}


def test_saves_that_failed_of_late_are_counted() -> None:
    """While a table is locked few saves come to an end: those that were quick before decide the quantile."""
    quick = Totals(store={"save": Histogram((0, 99, *[0] * 12), 0.1)})
    locked = Totals(store_errors={("save", "StoreError"): 3, ("save", "RowRefused"): 9, ("settle", "StoreError"): 9})
    assert database([quick]) == "database save p95 under 10 ms"
    assert database([quick, locked]) == "database save p95 under 10 ms, 3 failed within five minutes"
