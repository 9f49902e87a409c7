"""A sale goes on while Sentinels elect: nothing is sold twice, and every order that is lost is named."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from flashsale import Durability, Goods
from tests.support import deployments
from tests.support.helpers import until
from tests.support.hosts import ON_AIO
from tests.support.load import Load
from tests.support.sales import active_units, rows

if TYPE_CHECKING:
    from tests.support.hosts import Host

UNITS = 400
ELECTIONS = 2


@ON_AIO
async def test_a_sale_goes_on_through_elections(host: Host, record_property: Any) -> None:
    with deployments.watched(down_after=1.0) as deployment:
        manager = deployment.sentinels.amanager() if host.is_async else deployment.sentinels.manager()
        for sentinel in manager.sentinels:
            host.keep(sentinel)
        client = host.keep(manager.master_for(deployment.sentinels.name))
        safe = await load(host, client, Durability.REPLICATED)
        fast = await load(host, client, Durability.ACCEPTED)
        async with safe.staff(), fast.staff():
            buyers = [asyncio.create_task(each.buy_all()) for each in (safe, fast)]
            for _ in range(ELECTIONS):
                await asyncio.sleep(0.3)
                killed_at = time.monotonic()
                await deployment.elect()  # and the old primary is back, as a replica
                outages = [
                    await until(lambda each=each, since=killed_at: each.outage(since), "an order after the election")
                    for each in (safe, fast)
                ]
                print(f"named after {deployment.named[-1]:.2f} s, orders after {outages[0]:.2f} and {outages[1]:.2f} s")
                record_property("outages", outages)
            for each in (safe, fast):
                each.pause = 0
            await asyncio.gather(*buyers)
        for each in (safe, fast):
            assert each.troubles  # there was an outage for each of them
            saved, name = await rows(each.sale), each.sale.real.inventory.sale
            ledger = {found.decode() for found in deployment.primary.client().hkeys(f"flashsale:{{{name}}}:orders")}
            audit = await host.syncer(each.sale).audit(each.accepted)
            assert set(audit.lost) == each.accepted - saved.keys() - ledger
            assert await active_units(each.sale) == UNITS
        assert (await rows(safe.sale)).keys() == safe.accepted


async def load(host: Host, client: Any, durability: Durability) -> Load:
    """Returns the buyers of a started sale; slow ones, so that there is something left after the elections."""
    store = await host.store_of(str(durability), Goods("phone", UNITS))
    how = {"durability": durability, "durable_within": 0.5}
    # on both replicas: with one, the Sentinels may promote the other, which has not the order
    sale = host.on(client, str(durability), store=store, cache_for=0, replicas=2, **how)
    await host.syncer(sale).run_once()
    await sale.start("phone")
    return Load(host, sale, pause=0.3)
