"""Adds up what the partitions of a sale hold at one moment. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from flashsale.model.snapshot import AWAY, MISSING, GoodsSnapshot, PartitionSnapshot, Snapshot


def merged(looks: Sequence[Snapshot | None]) -> Snapshot:
    """Returns the sum of one look at each partition; None: it does not answer, so its share is not in the sums.

    Processes and leader are told to the first one. The sale is closed, or paused, where one partition is.
    """
    there = [look for look in looks if look is not None]
    states = {look.state for look in there}
    known = [look for look in there if look.epoch is not None] or there
    return replace(
        there[0],
        state=state_of(states, "open"),
        epoch=known[0].epoch,
        layout=known[0].layout,
        queued=sum(look.queued for look in there),
        oldest=min((look.oldest for look in there if look.oldest is not None), default=None),
        claimed=sum(look.claimed for look in there),
        dead=sum(look.dead for look in there),
        unpaid=sum(look.unpaid for look in there),
        goods=_goods(there),
        partitions=tuple(_part(place, look, known[0].epoch) for place, look in enumerate(looks)),
    )


def state_of(states: Collection[str], otherwise: str) -> str:
    """Returns the state of a sale whose partitions are in these: closed, or paused, where one of them is."""
    return next((state for state in ("closed", "paused") if state in states), otherwise)


def _part(place: int, look: Snapshot | None, epoch: int | None) -> PartitionSnapshot:
    if look is None:
        return PartitionSnapshot(place, AWAY)
    state = MISSING if look.epoch is None and epoch is not None else look.state
    return PartitionSnapshot(place, state, look.queued, look.claimed, look.dead, look.unpaid, look.goods)


def _goods(looks: Sequence[Snapshot]) -> tuple[GoodsSnapshot, ...]:
    """Returns each item with the units of all looks; what one of them has lost has no gate."""
    return tuple(_summed(parts) for parts in zip(*(look.goods for look in looks), strict=True))


def _summed(parts: Sequence[GoodsSnapshot]) -> GoodsSnapshot:
    there = next((each for each in parts if not each.is_lost), parts[0])
    gates = [each.gate for each in parts]
    return replace(
        there,
        total=sum(each.total for each in parts),
        booked=sum(each.booked for each in parts),
        gate=None if any(each.is_lost for each in parts) else sum(gate or 0 for gate in gates),
        access=sum(each.access for each in parts),
        started=any(each.started for each in parts),
    )
