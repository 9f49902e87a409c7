"""`status`: one screen for a sale, and its exit code for scripts."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import redis

from flashsale import FlashSale, Goods, Syncer
from flashsale._rules.activity import Activity, instance
from flashsale._rules.partitions import tag_of
from flashsale.cli import main
from flashsale.keys import PartitionKeys
from flashsale.model.snapshot import Histogram, Totals
from flashsale.ops.reading import scrape
from flashsale.ops.status import database
from flashsale.stores import SQLAlchemyStore
from tests.support import servers
from tests.support.operator import MOMENT

if TYPE_CHECKING:
    from pathlib import Path

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
    assert re.search(rf"takes 3 of them at {MOMENT} \(in [45] min.*\) at the latest", operator("status").out)


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
    assert re.search(rf"! SILENT  {name} silent since {MOMENT} \(4\d s ago\), held 1 then\. Another worker takes", told)
    assert re.search(rf"takes 1 of them at {MOMENT} \(in [45] min.*\) at the latest", told)
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


# -- partitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_each_partition_has_its_line(operator: Operator) -> None:
    operator.begin(Goods("phone", 30), Goods("case", 6))
    operator.sale.start("phone")
    works(operator, "worker", "syncer")
    operator.buy("o-1", "ann", 2)
    told = operator("status")
    assert told.code == 0, told
    head, _, _, phone, queue, titles, *parts, leader, redis = told.out.splitlines()
    assert head.endswith("   12 of 12 checks ok")
    assert phone.split()[:4] == ["phone", "30", "2", "28"]
    assert queue.startswith("queued 1 (on the list 1, ")
    assert titles.split() == ["partition", "state", "total", "booked", "free", "queued", "dead", "unpaid"]
    assert [part.split()[:3] for part in parts] == [[str(place), "open", "12"] for place in range(3)]
    assert sum(int(part.split()[3]) for part in parts) == 2
    assert leader == f"leader  {instance()}  workers 1"
    assert redis.startswith("redis   ")
    operator.raw.hset(operator.sale._parts[2].keys.meta, "state", "closed")
    told = operator("status")
    assert "CLOSED" in told.out.splitlines()[0]
    assert "! CLOSED  Redis has lost something in partition 2; " in told.out


@pytest.mark.parametrize("operator", [3], indirect=True)
def test_another_number_of_partitions_is_refused_at_once(operator: Operator) -> None:
    operator.begin()
    where = ["--redis", operator.redis_url, "--database", operator.database, "--sale", "spring"]
    for words in (["status"], ["audit"], ["open", "phone"], ["worker"], ["exporter"], ["restock", "phone", "+1"]):
        given = [each for each in where if words != ["exporter"] or ("sqlite" not in each and each != "--database")]
        for partitions in ([], ["--partitions", "2"]):
            told = operator(*words, *given, *partitions, where=False)
            assert told.code == 2, words
            assert "the sale was begun with 3 partitions" in told.err
            assert "--partitions 3" in told.err


def test_a_partition_that_is_away_is_named_and_the_others_are_steered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = f"sqlite:///{tmp_path / 'shop.db'}"
    with (
        servers.redis_server() as first,
        servers.redis_server() as second,
        SQLAlchemyStore(database, "spring") as store,
    ):
        urls = f"{first.url}, {second.url}"
        where = ["--redis", urls, "--database", database, "--sale", "spring", "--partitions", "4"]

        def typed(*words: str) -> tuple[int, str]:
            code = main([*words, *where])
            said = capsys.readouterr()
            return code, said.out + said.err

        store.create_all()
        store.put_goods(Goods("phone", 40))
        clients = [redis.Redis.from_url(server.url) for server in (first, second)]
        with FlashSale(clients, "spring", store=store, partitions=4) as sale:
            Syncer(sale).run_once()
        assert typed("open", "phone")[0] == 0
        code, said = typed("status")
        assert "partitions 0, 2: " in said
        assert "partitions 1, 3: " in said
        rights = re.findall(r"acl: partitions ([0-3], [0-3]): ", typed("doctor")[1])
        assert rights == ["0, 2", "1, 3"]
        clients[1].config_set("maxmemory", "3gb")
        with FlashSale(clients, "spring", partitions=4) as sale:
            assert scrape(sale).info["maxmemory"] == str(3 << 30)  # the first server has no limit
        where[1] = f"{second.url}, {first.url}"
        code, said = typed("status")
        assert (code, said.endswith("in the same order: --partitions 4 --redis 'URL URL'\n")) == (2, True)
        where[1] = urls
        second.kill()
        code, said = typed("status")
        assert code == 1
        assert "! AWAY  partitions 1, 3 cannot be reached, and are not in the sums" in said
        assert "OTHER POLICY" not in said  # the units there are not missing
        code, found = typed("doctor")
        assert code == 1
        assert "! sale: partitions 1, 3 cannot be reached" in found
        assert "! redis: cannot be looked at: no connection to Redis" in found
        assert "memory: partitions 0, 2: " in found
        assert "acl: partitions 1, 3: the rights cannot be tried: no connection to Redis" in found
        assert [line.split()[:2] for line in said.splitlines() if re.match(r"\d ", line)] == [
            ["0", "open"],
            ["1", "away"],
            ["2", "open"],
            ["3", "away"],
        ]
        assert "not known: no answer (partitions 1, 3)" in typed("goods", "list")[1]
        code, said = typed("stop", "phone", "--yes")
        assert (code, "partitions without stop: 1, 3" in said) == (3, True)
        code, said = typed("pause")
        assert (code, "partitions without pause: 1, 3" in said) == (3, True)
        for place in (0, 2):
            keys = PartitionKeys("spring", tag_of("spring", place, 4))
            assert clients[0].get(keys.start("phone")) == b"0"
            assert clients[0].hget(keys.meta, "state") == b"paused"
        for client in clients:
            client.close()
