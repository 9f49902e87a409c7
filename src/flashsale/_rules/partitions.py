"""The rules of partitions: which one has a buyer, an order or a slot, and how units are to move between them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from zlib import crc32

from flashsale._rules.codes import number
from flashsale._rules.redispy import slot_of
from flashsale.errors import InvalidRequest
from flashsale.model import Order
from flashsale.model.checks import check_id, check_int, new_order_id

MAX_PARTITIONS: Final = 256  # two digits in hex
SLOTS: Final = 16_384  # of a Redis Cluster
_DIGITS: Final = "0123456789abcdef"


class Routes:
    """Which partition has a buyer or an order: a buyer's is a hash of the id, an order id begins with its buyer's.

    Args:
        partitions: how many there are.
    """

    def __init__(self, partitions: int) -> None:
        self.partitions = check_int("partitions", partitions, 1, MAX_PARTITIONS)
        self.prefixes = tuple(f"{place:02x}" for place in range(partitions))
        self._places = {prefix: place for place, prefix in enumerate(self.prefixes)}

    def of_buyer(self, buyer_id: str) -> int:
        """Returns the partition of a buyer.

        Raises:
            InvalidRequest: it is no string, or not ASCII; what else a buyer id may not be, the checks say later.
        """
        try:
            return crc32(buyer_id.encode("ascii")) % self.partitions
        except (AttributeError, TypeError, UnicodeError):
            check_id("buyer_id", buyer_id)
            raise

    def of_order(self, order_id: str, name: str = "order_id") -> int:
        """Returns the partition that an order id names.

        Raises:
            InvalidRequest: it names none.
        """
        place = self._places.get(check_id(name, order_id)[:2])
        if place is not None and len(order_id) > 2:
            return place
        last = self.prefixes[-1]
        raise InvalidRequest(name, f"must begin with its buyer's partition, 00 to {last}: sale.order_id(buyer_id)")

    def belongs(self, order: Order) -> bool:
        """Returns whether an order has an id of its buyer's partition."""
        return self._places.get(order.order_id[:2]) == self.of_buyer(order.buyer_id)

    def order_id(self, buyer_id: str, name: str | None = None) -> str:
        """Returns an order id of this buyer: one that nobody can guess, or one that ends with `name`."""
        digits = self.prefixes[self.of_buyer(buyer_id)]
        return digits + new_order_id()[2:] if name is None else check_id("name", digits + check_id("name", name))


def tag_of(sale: str, place: int, partitions: int) -> str:
    """Returns the hash tag of a partition.

    Its slot lies in the `place`-th of as many equal ranges of slots as there are partitions: primaries that share the
    slots evenly get the partitions evenly. `~` is in no sale's name; the number of partitions is in the tag, so that a
    process with another number never meets these keys.
    """
    tag, salt = f"{sale}~{partitions}.{place:02x}", 0
    name = tag
    while slot_of(f"{{{name}}}") * partitions // SLOTS != place:
        salt += 1
        name = f"{tag}.{salt}"
    return name


@dataclass(frozen=True, slots=True)
class Survey:
    """What a partition has of one item.

    Args:
        epoch: of the partition.
        state: open, paused or closed.
        left: units that nobody has booked, and no ticket promises.
        lacking: units that are booked here and that the partition does not have: a failover lost them on their way.
        total: units that the partition has.
        allotted: units that the whole sale has; None but in partition 0.
        moves: how often units came or went.
        mended: how often a loss was mended.
        sent: partition -> seq and units of the transfer to it that is open.
        credited: partition -> seq of the last transfer from there that is here.
    """

    epoch: str
    state: str
    left: int
    lacking: int
    total: int
    allotted: int | None
    moves: int
    mended: int
    sent: Mapping[int, tuple[int, int]]
    credited: Mapping[int, int]


def transfer_fields(partitions: int) -> list[str]:
    """Returns the fields of the hash `transfers`, in the order in which `read_survey` takes their values."""
    places = [f"{place:02x}" for place in range(partitions)]
    return ["moves", "mended", *(f"to:{place}" for place in places), *(f"from:{place}" for place in places)]


def read_survey(reply: Sequence[Any]) -> Survey:
    """Returns what the script `survey` said of an item that is there, asked for all `transfer_fields`.

    Raises:
        ValueError: it is not what flashsale writes.
    """
    _, epoch, state, left, total, allotted, values = reply
    moves, mended, *pairs = (str(value, "ascii") for value in values)
    half = len(pairs) // 2
    sent = {}
    for place, text in enumerate(pairs[:half]):
        if text and not text.endswith(" 0"):
            seq, _, units = text.partition(" ")
            sent[place] = (int(seq), int(units))
    credited = {place: int(text) for place, text in enumerate(pairs[half:]) if text}
    return Survey(
        epoch=str(epoch, "ascii"),
        state=str(state, "ascii") or "open",
        left=max(0, int(left)),
        lacking=max(0, -int(left)),
        total=int(total),
        allotted=number(allotted) if allotted else None,
        moves=int(moves or "0"),
        mended=int(mended or "0"),
        sent=sent,
        credited=credited,
    )


class Look:
    """One look at all partitions.

    Args:
        surveys: of each, in their order.
    """

    def __init__(self, surveys: Sequence[Survey]) -> None:
        self.surveys = surveys

    @property
    def epoch(self) -> str:
        """The epoch of the sale, as the first partition has it."""
        return self.surveys[0].epoch

    @cached_property
    def left(self) -> int:
        """Units that are free, without those on their way."""
        return sum(each.left for each in self.surveys)

    @cached_property
    def stamp(self) -> tuple[tuple[int, int, str], ...]:
        """Two looks with the same one have nothing that moved between them."""
        return tuple((each.moves, each.total, each.epoch) for each in self.surveys)

    def open(self) -> Iterator[tuple[int, int, int, int]]:
        """Yields each transfer that has not landed: from, to, seq, units."""
        for place, each in enumerate(self.surveys):
            for to, (seq, units) in each.sent.items():
                yield place, to, seq, units

    @property
    def units(self) -> int:
        """Units that the partitions have, and those on their way that no partition has."""
        under_way = (units for place, to, seq, units in self.open() if self.seen(place, to) < seq)
        return sum(each.total for each in self.surveys) + sum(under_way)

    def seen(self, place: int, to: int) -> int:
        """Returns the last transfer between two partitions that the second one has credited."""
        return self.surveys[to].credited.get(place, 0)

    def gather(self, to: int, wanted: int, *, ahead: bool) -> list[tuple[int, int]]:
        """Returns from which partitions, the richest first, how many units could come to bring `wanted`.

        Args:
            to: who wants them.
            wanted: units.
            ahead: True: at least half of what a partition has, so that the next buyers find some, too.
        """
        moves = []
        for place in sorted(range(len(self.surveys)), key=lambda place: -self.surveys[place].left):
            left = self.surveys[place].left
            if place == to or wanted <= 0 or left <= 0:
                continue
            units = min(left, max(wanted, (left + 1) // 2) if ahead else wanted)
            moves.append((place, units))
            wanted -= units
        return moves

    def even(self) -> list[tuple[int, int, int]]:
        """Returns the moves (from, to, units) that even out what is left; what is nearly even stays."""
        mean, more = divmod(self.left, len(self.surveys))
        over = {place: each.left - mean - (place < more) for place, each in enumerate(self.surveys)}
        rich = [place for place, units in over.items() if units > 0]
        moves = []
        for to in [place for place, units in over.items() if units < -(mean // 8)]:
            while over[to] < 0 and rich:
                units = min(over[rich[-1]], -over[to])
                moves.append((rich[-1], to, units))
                over[to] += units
                over[rich[-1]] -= units
                if not over[rich[-1]]:
                    rich.pop()
        return moves
