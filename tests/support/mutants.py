"""The registry of mutants: each mechanism of the library, the promise that breaks without it, and how to take it out.

A test marked `kills("name")` runs without that mechanism and must fail then; one marked `without("name")` says itself
what goes wrong. A Lua line is quoted here and nowhere else.

    python -m tests.support.mutants     # mutant | promise | tests that kill it
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from sqlalchemy import false
from sqlalchemy.exc import SQLAlchemyError

from flashsale import CorruptState, RowRefused
from flashsale._rules.batches import batches
from flashsale._rules.redis_errors import unsent
from flashsale._sync.transitions import Transitions
from flashsale.lua import SCRIPTS, Script
from flashsale.stores import RowStore
from tests.support import broken

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.faults.world import World

SYNC, AIO, DJANGO = "flashsale", "flashsale.aio", "django"


def change(monkeypatch: pytest.MonkeyPatch, script: str, old: str, new: str) -> None:
    """Changes the one place of a Lua script that says `old`."""
    text = SCRIPTS[script].text
    assert text.count(old) == 1, f"{script}.lua has changed: mend its mutants"
    text = text.replace(old, new)
    sha = hashlib.sha1(text.encode("ascii"), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(SCRIPTS, script, Script(script, text, sha))


def begin_in_layout_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every sale begin as releases before began it: each element of the queue has a lease of its own."""
    for script in ("load", "close"):
        change(monkeypatch, script, "show(NEWEST)", '"1"')


class Lua(NamedTuple):
    """A line of a script is another one."""

    script: str
    old: str
    new: str

    def __call__(self, monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
        change(monkeypatch, *self)


class Patch(NamedTuple):
    """A value stands in the place of a dotted name."""

    target: str
    value: Any

    def __call__(self, monkeypatch: pytest.MonkeyPatch, _: World | None) -> None:
        monkeypatch.setattr(self.target, self.value)


class Tell(NamedTuple):
    """The processes of the test are told to do without."""

    word: str

    def __call__(self, _: pytest.MonkeyPatch, world: World | None) -> None:
        world.child[self.word] = True


class Mutant(NamedTuple):
    """One mechanism, and how to take it out.

    Args:
        name: of the mechanism.
        promise: that breaks: O, E, L or T of docs/guarantees.md, or a rule in words.
        how: each called with `monkeypatch` and the `World` of a fault.
        API: on which a fault takes it out; the sync API is generated from the other.
    """

    name: str
    promise: str
    how: tuple[Callable[[pytest.MonkeyPatch, World | None], None], ...]
    api: str = SYNC

    def take_out(self, monkeypatch: pytest.MonkeyPatch, world: World | None = None) -> None:
        for part in self.how:
            part(monkeypatch, world)


MUTANTS: dict[str, Mutant] = {}


def _add(name: str, promise: str, *how: Any, api: str = SYNC) -> None:
    assert name not in MUTANTS
    MUTANTS[name] = Mutant(name, promise, how, api)


def _store(mutant: type) -> Patch:
    return Patch("flashsale.stores.SQLAlchemyStore", mutant)


# -- reserve: the purchase --------------------------------------------------------------------------------------------

_add("the order id in the script", "O E", Lua("reserve", "= known[i] or fresh[id], refused", "= nil, refused"))
_add(
    "the comparison of a repeat",
    "T",
    Lua("reserve", "if booked == quantity and of == goods and by == buyer then", "if true then"),
)
_add("the buyer in the comparison", "T", Lua("reserve", "and by == buyer", ""))
_add("the bound of the stock", "O", Lua("reserve", "if units > left then", "if false then"))
_add("the cap of a buyer", "a buyer's cap", Lua("reserve", "held[buyer] + units > cap", "false"))
_add("a table from the first order", "T", Lua("reserve", 'redis.call("HSET", key, field, LONG)', "return"))
_add("all or none of a basket", "a basket is whole", Lua("reserve", "if together and not whole then", "if false then"))
_add(
    "the end of the window",
    "the window of a sale",
    Lua("reserve", "if closes_at and time >= tonumber(closes_at) then", "if false then"),
)
_add("the pause", "nothing is sold in a pause", Lua("reserve", '(meta[1] or "open") ~= "open" or', ""))
_add(
    "the gate in the purchase",
    "the window of a sale",
    Lua("reserve", "goods.code or goods.gate.code or shut(", "goods.code or shut("),
)
_add(
    "the read before the first write",
    "O T",
    Lua("reserve", 'redis.call("LLEN", KEYS[3]) --', "--"),
)
_add(
    "the check of memory before a write",
    "O T",
    Lua("reserve", 'redis.call("LLEN", KEYS[3]) --', 'redis.call("LTRIM", KEYS[3], 0, -2) --'),
)

# -- whole numbers, and the layout: what several scripts include ------------------------------------------------------

NUMBER = "local function integer(text)\n"
for _script in ("reserve", "deduct", "release", "enter"):
    _add(
        f"whole numbers in {_script}",
        "O T",
        Lua(_script, NUMBER, NUMBER + "  if true then return tonumber(text) end\n"),
    )
LAYOUTS = "local OLDEST, NEWEST = 1, 2\n"  # that this release reads
BEGINS = ("reserve", "claim", "lead", "share", "load", "pause", "layout", "records")  # the scripts that begin something
for _script in BEGINS:
    _add(f"the layout in {_script}", "T", Lua(_script, "if layout and (", "if false and ("))

# -- enter, deduct, release, load: gate and stock ---------------------------------------------------------------------

_add("the bound of the gate", "O", Lua("enter", "math.min(callers, math.floor(gate.left / units))", "callers"))
_add(
    "the flag of the gate",
    "the window of a sale",
    Lua("enter", 'if not gate.code and values[2] ~= "1" then', "if false then"),
)
_add("the window of the gate", "the window of a sale", Lua("enter", "gate.code = shut(", "gate.code = nil and shut("))
_add(
    "the schedule of the gate", "the window of a sale", Lua("enter", 'gate.due = window[4] == "1"', "gate.due = false")
)
_add("the bound of a deduction", "O", Lua("deduct", "goods.booked + goods.taken + units <= goods.total", "true"))
_add(
    "the bound of a release", "O", Lua("release", "math.min(units, math.max(0, goods.booked - goods.ledger))", "units")
)
_add("the one preload", "O", Lua("load", "if (values[1] or values[2]) and not external then", "if false then"))

# -- settle, ack, hold: an order's states -----------------------------------------------------------------------------

_add(
    "a state is left once",
    "O L",
    Lua(
        "settle",
        'not string.find(AHEAD[state], " " .. to .. " ", 1, true)',
        "false",
    ),
)
_add(
    "the units of a refused order",
    "L",
    Lua("settle", "elseif RELEASED[to] and not free(", "elseif false and not free("),
)
_add(
    "the units that come back",
    "L",
    Lua("settle", "goods.booked - units, goods.ledger - units", "goods.booked, goods.ledger"),
)
_add("the allowance that comes back", "a buyer's cap", Lua("settle", "held - units", "held"))
_add(
    "the slot that comes back",
    "L",
    Lua("settle", "math.min(goods.access, units)", "0"),
)
_add("a slot is its own", "O", Lua("settle", "goods.counter and flags % 2 == 1", "goods.counter"))
_add("the end of a letter", "L", Lua("settle", 'state == "DEAD" and ARGV[2] == "0"', "false"))
_add("the end of a deadline", "L", Lua("settle", 'redis.call("ZREM", KEYS[2], unpack(moved))', ""))
_add(
    "the deadline of a row found first",
    "L",
    Lua("settle", 'local hold = to == "PERSISTED" and', "local hold = false and"),
)
_add("the deadline of a saved order", "L", Lua("ack", "if due then", "if false then"))
_add("states that stand", "E L", Lua("ack", '"^QUEUED(', '"^%u+('))
_add("a page counts an allowance on", "a buyer's cap", Lua("settle", "goods.held[buyer] == nil", "true"))
_add("a page counts the gate on", "L", Lua("settle", "(goods.back or 0) + back", "back"))
_add("the goods of an order that moves", "O", Lua("settle", "of ~= ARGV[at + 1]", "false"))
_add(
    "one call for a page of overdue orders",
    "few trips",
    *(Patch(f"flashsale.{api}.transitions.bulk_settle", lambda _: None) for api in ("aio", "_sync")),
)
_add("no look at Redis before a move", "few trips", broken.one_more_look)
_add("more time comes too late", "L", Lua("hold", "tonumber(current) <= time", "false"))
_add("never less time", "L", Lua("hold", "if wanted > tonumber(current) then", "if true then"))

# -- ticket: one live ticket of a buyer -------------------------------------------------------------------------------

_add("the cap of a ticket", "a buyer's cap", Lua("ticket", "if units > cap then", "if false then"))
_add("one live ticket", "a buyer's cap", Lua("ticket", "elseif not id or id == used then", "elseif true then"))
_add("the end of a ticket", "L", Lua("ticket", "(seconds(ends) or 0) > time", "seconds(ends)"))
_add("a used ticket blocks nobody", "L", Patch("flashsale._sync.ledger.Ledger.get_many", lambda *_: {}))
_add("an order has one slot", "L", Patch("flashsale._sync.transitions.Transitions.leave", lambda *_: None))
_add("a ticket outlives the last unit", "T", broken.always_remembered)
_add("a purchase takes a ticket", "a buyer's cap", broken.never_required)

# -- claim, nack, extend, bury, requeue, adopt: the queue -------------------------------------------------------------

DUE = 'KEYS[4], "-inf", string.format("%.6f", time)'
_add("the lease of a claim", "E", Lua("claim", DUE, 'KEYS[4], "-inf", "+inf"'))
_add("the end of a lease", "E", Lua("claim", DUE, 'KEYS[4], "-inf", "0"'))
_add("leases are looked at", "E", Lua("claim", DUE, 'KEYS[4], "-inf", "-inf"'))
_add("the count of attempts", "E", Lua("claim", "math.min(tonumber(attempts), 1000) + (refused and 1 or 0)", "1"))
_add("the count of refusals alone", "E", Lua("claim", "(refused and 1 or 0)", "1"))
_add("the count of claims alone", "E", Lua("claim", "(alone and 1 or 0)) * ALONE", "1) * ALONE"))
_add("the count of lost leases", "E", Lua("claim", "math.floor(tonumber(lease) / ALONE)", "0"))
_add("a lease of the release before", "E", Lua("claim", "math.floor(tonumber(lease) / ALONE)", "tonumber(lease) % 10"))
_add("the half of lost claims", "E", Lua("claim", "math.floor(together / 2)", "together"))
_add("the back of the queue", "E", Lua("claim", "#own + waiting == 0 or", "true or"))
_add("the turn of lost claims", "E", Lua("claim", "last >= (integer(turn) or last + 1)", "false"))
_add("refused ones are not lost", "E", Lua("claim", "found.refused and own or lost", "false or lost"))
_add("several elements from the right end", "a long list is no slower", Lua("claim", "length < FAR * count", "true"))
LAST = 'redis.call("LINDEX", list, -taken))'
FROM_THE_LEFT = 'redis.call("LRANGE", list, -taken, -taken)[1])'
_add("the last element from the right end", "a long list is no slower", Lua("claim", LAST, FROM_THE_LEFT))
OLDEST = 'redis.pcall("LINDEX", KEYS[2], -1)'
_add(
    "the oldest element from the right end",
    "a long list is no slower",
    Lua("look", OLDEST, 'redis.pcall("LRANGE", KEYS[2], -1, -1)[1]'),
)
_add("a claim cuts no basket", "a basket is saved whole", Lua("claim", "uncut(KEYS[2], fresh)", "fresh"))
_add(
    "lost baskets are claimed whole",
    "a basket is saved whole",
    Lua("claim", "each and #group < MOST", "each and #group < 1"),
)
_add("a basket waits for what is leased", "a basket is saved whole", Lua("claim", "free and group or nil", "group"))
_add("a basket is alone as one", "E", Lua("claim", "not basket(bodies[i]) or", "true or"))
_add("a requeue cuts no basket", "a basket is saved whole", Patch("flashsale._sync.order_queue.whole_baskets", batches))
_add("a split cuts no basket", "a basket is saved whole", Patch("flashsale._sync.worker.halves", broken.cut))
_add("the new leases", "E", Lua("claim", "if leaseless then", "if false then"))
_add("every page of new leases", "E", Lua("claim", 'until page[1] == "0"', "until true"))
_add("the half of what was too slow", "E", Patch("flashsale._sync.worker._is_slow", lambda _: False))
_add("the longer lease", "E", Patch("flashsale.Worker._extend", lambda *_: None))
_add("the split of a lost claim", "E", Lua("claim", "local count = split(KEYS[4], KEYS[5], name)", "local count = 1"))
_add("the bound of splits", "T", Lua("claim", "numbers(name) and parts < limit", "numbers(name)"))
_add("bodies of one line", "E", Lua("claim", 'not string.find(table.concat(bodies), "\\n", 1, true)', "true"))
_add("the bound of a claim's text", "T", Lua("claim", "size <= LONGEST and", ""))
_add("as many lines as the name says", "E", Lua("claim", "~= count - 1 then", "< 0 then"))
_add("what is no claim makes room", "E", Lua("claim", "odd[delivery] or not", "not"))
_add("the second scan of what is claimed", "E", Patch("flashsale._sync.order_queue.SCANS", 1))
_add("an extension in a full Redis", "E", Lua("extend", 'redis.call("ZREM", KEYS[1], "")', ""))
_add("layout 1 where it was begun", "E", Lua("claim", 'layout == "2"', "true"))
_add("the rest of an acknowledged claim", "E", Lua("ack", "if not (gone and gone[delivery]) then", "if false then"))
_add("the ack of a claim that was split", "E", Lua("ack", "for _ = 1, count do", "for _ = 1, 0 do"))
_add("the extension of a claim that was split", "E", Lua("extend", "for _ = 1, count do", "for _ = 1, 0 do"))
_add("the split before an extension", "E", Lua("extend", "for at = parts, first - 1 do", "for at = 1, 0 do"))
_add("the split before a refusal", "E", Lua("nack", "for at = 4, first - 1 do", "for at = 1, 0 do"))
_add("the split before a burial", "E", Lua("bury", "for at = 2, first - 1 do", "for at = 1, 0 do"))
_add("claims are counted by element", "E", Lua("look", "is_shared and", "false and"))
_add("the lease of nack", "E", Lua("nack", "if lease == ARGV[at + 1] then", "if lease then"))
_add("the lease of extend", "E", Lua("extend", '"^%d+|(%d+)|") == lease', '"^%d+|(%d+)|")'))
_add("the lease of bury", "E", Lua("bury", 'string.match(entry, "^%d+|(%d+)|") == ARGV[at + 1]', 'entry ~= ""'))
_add("the attempt that does not count", "E", broken.every_attempt_counts)
_add("nobody's attempt", "E", Lua("nack", 'if ARGV[3] == "0" then', "if false then"))
_add("the delay of an order let go", "E", Lua("nack", "now() + tonumber(ARGV[2])", "now()"))
_add("the record of a dead order", "L", Lua("bury", 'record("DEAD"', 'record("QUEUED"'))
_add("a dead order is itself", "E", Lua("bury", '"|") == ARGV[at + 3]', '"|") ~= ""'))
_add("the state of a dead order", "E", Lua("requeue", 'if state == "DEAD" then', "if false then"))
_add(
    "the direct units of an adoption",
    "O",
    Lua("adopt", "math.min(untracked,", "math.min(0,"),
)
_add("the ledger in an adoption", "E", Lua("adopt", "fresh[id] or known[i]", "nil"))
_add(
    "the units of an adopted order",
    "O",
    Lua("adopt", "goods.ledger = goods.ledger + units", "units = 0"),
)
_add("an adoption waits for a rebuild", "O E", Lua("adopt", "elseif closed then", "elseif false then"))
_add(
    "the order of writes in claim",
    "E",
    Lua(
        "claim",
        "local leaseless =",
        'redis.call("HSET", KEYS[1], "deliveries", show(last))\nlocal leaseless =',
    ),
)
_add(
    "the order of writes in ack",
    "E",
    Lua("ack", 'redis.call("HLEN", KEYS[2])\n', 'redis.call("SET", KEYS[1] .. "?", "1")\n'),
)

# -- configure, mirror, lead: the syncer and the outbox ---------------------------------------------------------------

_add("the version of the total", "O", Lua("configure", "if integer(ARGV[1]) < current then", "if false then"))
_add(
    "the total stops at what is booked",
    "O",
    Lua("configure", "math.max(integer(ARGV[2]), bound)", "integer(ARGV[2])"),
)
_add("leaked slots return", "L", Lua("mirror", "if show(access) == ARGV[3] then", "if false then"))
_add("a stock that moves keeps its slots", "O", Lua("mirror", "if show(access) == ARGV[3] then", "if true then"))
_add("the cap that the gate has", "a buyer's cap", Lua("mirror", '"per_buyer", ARGV[5]', '"?", ARGV[5]'))
_add("dead tickets are removed", "bounded memory", Lua("sweep", "if #dead > 0 then", "if false then"))
_add("one leads", "one syncer acts", Lua("lead", "time < until_ and", "false and"))
_add("the longest lease", "L", Lua("lead", "until_ - time <= LONGEST", "true"))

# -- partitions: ids, elements, passes, rebuilds ----------------------------------------------------------------------

_PARTS = "flashsale._sync.partitions"
_add("partitions are met", "T", Patch(f"{_PARTS}.sale.PartitionedSale._meet", lambda *_: None))
_add("the partition of an id", "O T", Patch("flashsale._rules.partitions.Routes.of_order", broken.any_partition))
_add("strange elements are buried", "O E", Patch(f"{_PARTS}.partition.Partition.has", lambda *_: True))
_add("a pass spreads units", "O", Patch(f"{_PARTS}.transfers.Transfers.spread", lambda *_: None))
_add("a pass tightens the guard", "O", Patch("flashsale._sync.syncer.Syncer._tighten", lambda *_: None))
_add("a purge that was begun is ended", "T", Patch(f"{_PARTS}.syncer.PartitionedSyncer.purge", broken.purge_anew))
_add(
    "units wait for what has no row",
    "E",
    Patch(f"{_PARTS}.rebuilder.PartitionRebuilder._without_row", lambda _, orders: orders),
)
_add("units adrift are mended", "L", Patch(f"{_PARTS}.transfers.Transfers.mend", lambda *_: 0))

# -- share: the outboxes ----------------------------------------------------------------------------------------------

_add("who was replaced stops", "events in their order", Lua("share", "codes[slot] = 1", "codes[slot] = 2"))
_add("one outbox for a slot", "events in their order", Lua("share", "and not ends[owners[slot]]", ""))
_add("a fair share of the slots", "T", Lua("share", "busy or share > 0", "true"))
_add("an event that is handled keeps its slot", "events in their order", Lua("share", "busy or share > 0", "share > 0"))
_add("the slots of a dead outbox", "T", Lua("share", "name ~= token and lasts(tonumber(until_))", "name ~= token"))
_add("the longest lease of an outbox", "T", Lua("share", "and ends - time <= LONGEST", ""))
_add(
    "the outbox of the release before",
    "events in their order",
    Lua("share", 'values[1] ~= "shared" and lasts(tonumber(values[2]))', "false"),
)
_add(
    "the first event of an order",
    "events in their order",
    Patch("flashsale._sql.tables._waits_for_another", lambda *_: false()),
)
_add("the renewal while an event is handled", "T", Patch("flashsale.Outbox._renew", lambda _: None))
_add("the event of a saved order in its transaction", "E", broken.late_events)

# -- close, wipe, restore, open: the rebuild --------------------------------------------------------------------------

_add("the epoch of a restore", "O", Lua("restore", "meta[1] ~= ARGV[1] and -8 or", ""))
_add("the epoch of a close", "O", Lua("close", "if epoch and epoch > integer(ARGV[1]) then", "if false then"))
_add("the epoch of a wipe", "O", Lua("wipe", 'if meta[1] ~= ARGV[1] or meta[2] ~= "closed" then', "if false then"))
_add("the epoch of an opening", "O", Lua("open", "~= ARGV[1]", '== "x"'))
_add(
    "known rows are booked once",
    "O",
    Lua("restore", "elseif current and (ACTIVE[current] or not ACTIVE[state]) then", "elseif false then"),
)
_add(
    "the units of a restored order",
    "O",
    Lua("restore", "goods.booked + units, goods.ledger + units", "goods.booked, goods.ledger"),
)
_add("the caps of a restore", "a buyer's cap", Lua("restore", "hold(goods, buyer, units)\n      if state", "if state"))
_add("the deadlines of a restore", "L", Lua("restore", 'if state == "PERSISTED" and goods.hold then', "if false then"))
_add("new deliveries in a new epoch", "E", Lua("close", "integer(ARGV[1]) % 1e6 * 1e9", "0"))
_add("nothing is for sale in a rebuild", "O", Lua("wipe", '"Total", "0"', '"Total", "3"'))
_add("a rebuild books what waits", "E O", Patch("flashsale._sync.rebuilder.Rebuilder._take_up", lambda *_: None))
_add("untracked units are another's", "L", Lua("adopt", "or integer(most)", "or units"))
_add("unknown, or to be rebuilt", "T", Patch("flashsale._sync.ledger.Look.require_whole", lambda *_: None))
_add(
    "the ledger says who waits with units", "O L", Patch("flashsale._sync.rebuilder.Rebuilder._known", lambda *_: set())
)
_add("a rebuild that died is remembered", "O", Lua("wipe", "kept and integer(kept) or 0", "0"))
_add("who was cancelled since is forgotten", "L", Lua("settle", "if tracked then", "if false then"))
_add("a rebuild that ended is forgotten", "L", Lua("open", 'redis.call("HDEL", KEYS[key], "tracked")', ""))
_add("a rebuild rejects nobody", "E", Patch("flashsale._sync.rebuilder.Rebuilder._refuse_lowered", lambda *_: None))
_add("direct units outlive a rebuild", "O", Lua("wipe", "goods.booked - goods.ledger", "0"))

# -- lost keys and bad values -----------------------------------------------------------------------------------------

_LOOK = "lost(meta[1], seq, all)"
_add(
    "a purchase asks for the ledger",
    "O E",
    Lua("reserve", '(meta[1] or "open") ~= "open" or lost(meta[1], seq, all)', '(meta[1] or "open") ~= "open"'),
)
_add(
    "items tell that ledger and meta are lost",
    "O E",
    Lua("reserve", "goods.ours and (not state or", "false and (not state or"),
)
_add("an adoption asks for the ledger", "O E", Lua("adopt", " or lost(meta[2], seq, all)", ""))
_add("a restore asks for the ledger", "O E", Lua("restore", "or lost(meta[3], seq, all) and -5 or nil", "or nil"))
_add("the syncer asks for the ledger", "O E", Lua("notice", _LOOK, f"seq == 0 and {_LOOK}"))
_add("the syncer asks for meta", "O E", Lua("notice", _LOOK, "false"))
_add("the syncer asks for the buyers", "a buyer's cap", Lua("notice", "stock[3] and", "false and"))
_add("lost names of items return", "L", Lua("notice", 'redis.pcall("SADD", KEYS[3], unpack(present))', ""))
_add("the mark of the buyers", "a buyer's cap", Lua("reserve", "(gone and -5)", "(false)"))
_add("new deliveries when meta is lost", "E", Lua("claim", 'redis.call("HLEN", KEYS[5]) > 0 then', "false then"))
_add("the syncer recovers places", "E L", Patch("flashsale._sync.auditor.Auditor.recover", lambda _: 0))
_add("a busy queue loses nothing", "E", Patch("flashsale._sync.order_queue.OrderQueue._is_idle", lambda _: True))
_add("the end of the numbers", "a bad value is named", Lua("reserve", "seq and seq < 9e14 and seq or nil", "seq"))
_add("the numbers begin anew", "a rebuild mends", Lua("wipe", 'redis.call("HDEL", KEYS[1], "seq")', ""))
_add("a rebuild sweeps names", "a rebuild mends", Lua("wipe", "#name <= 64 and string.find(name, ", "true or ("))

_add("the look for the sale", "T", Patch("flashsale._sync.sale.FlashSale._check_known", lambda *_: None))
_add("the wait for the sale", "T", Patch("flashsale._sync.syncer.wait_until_known", lambda *_: None))
_MOVED = "flashsale._sync.stores.moved.MovedRowStore"
_HOOKED = "flashsale._sync.stores.hooked.HookedRowStore"
_add("the record of a purge", "a purge is for good", *(Patch(f"{kind}.purge", None) for kind in (_MOVED, _HOOKED)))
_add(
    "the closed gap of a purge",
    "a purge is for good",
    Patch("flashsale._sync.sale_state.SaleMeta.close", lambda *_: None),
)
_add("a purged sale is granted nothing", "a purge is for good", Patch(f"{_MOVED}._refuse_purged", lambda *_: None))

# -- the database and the worker --------------------------------------------------------------------------------------

_add("the guard in the database", "O", broken.no_guard)
_add("the tombstone", "E", _store(broken.NoTombstone))
_add("the conditional update", "O L", _store(broken.NoWinner))
_add("the count of inserted rows alone", "E", _store(broken.BookedTwice))
_add("the primary key", "E", _store(broken.NoKey), Tell("keyless"))
_add("the version of the grant", "O", _store(broken.AnyVersion))
_add("the mark that they were loaded", "O", _store(broken.NeverLoaded))
_add("the ack after the commit", "E", broken.ack_before_commit)
_add("the split of the batch", "E", broken.no_split)
_add("the rebuild from the database", "T", broken.restores_nothing)
_add("the doubt about a COMMIT", "E T", Patch("flashsale._sql.engines.is_rolled_back", lambda _: True))
_add(
    "the doubt about a COMMIT of Django's",
    "E T",
    Patch("flashsale.contrib.django.store.is_rolled_back", lambda _: True),
    api=DJANGO,
)
_add(
    "the blame of rows alone",
    "E",
    Patch("flashsale._rules.sqlstates._ROW_CLASSES", frozenset({"22", "23", "25", "44", "P0"})),
)
_add("the look at the whole batch", "E", broken.every_refusal_blames)
_add(
    "the SQLSTATE",
    "E",
    Patch("flashsale._rules.sqlstates._sqlstate", lambda _: ""),
    Patch("flashsale._rules.sqlstates._number", lambda _: 0),
)
_add("the rows taken since", "L", Patch("flashsale.Worker._blame_suspects", lambda _: None))
_add("the reason of a dead letter", "T", Patch("flashsale.OrderQueue._explain", lambda *_: None))
_add(
    "the blame for any exception",
    "E T",
    Patch("flashsale._sync.worker._blames_row", lambda error: isinstance(error, RowRefused)),
)
_add("the deadline of a transaction", "T", Patch("flashsale._sql.deadlines._file_number", lambda _: None))
_add("a store's connections of a process' own", "E T", Tell("shares"))
_add("Django's connections of a process' own", "E T", Tell("shares"), api=DJANGO)
_add(
    "the wait for the host's commit",
    "E L",
    Patch("flashsale.contrib.django.store.DjangoStore.on_commit", lambda *_: False),
    api=DJANGO,
)
_add(
    "the look at the host's transaction",
    "E",
    Patch("flashsale._sync.transitions.in_transaction", lambda _: False),
    api=DJANGO,
)
_add(
    "the wait for the end of the host's transaction",
    "E L",
    Patch("flashsale._sync.following.Following.later", lambda *_: False),
)
_add(
    "the second look at what was decided", "E", Patch("flashsale._sync.following.Following._standing", lambda _, it: it)
)
_add(
    "the savepoint in the host's transaction",
    "E",
    Patch(
        "flashsale._sync.stores.sqlalchemy.SQLAlchemyStore._within",
        lambda _, connection: contextlib.nullcontext(connection),
    ),
)
_add("the lock of what is decided by", "E T", broken.no_lock)
_add(
    "the look for a transaction",
    "E",
    Patch("flashsale._sync.stores.sqlalchemy.check_transaction", lambda _: None),
)
_add("the row under a change", "O", Patch("flashsale._sync.stores.base.completed", lambda goods, _: goods))

# -- the connection and the server ------------------------------------------------------------------------------------

_add("the side of the send", "T", Patch("flashsale._sync.transport.link.sent", unsent))
_add("the timeout", "T", broken.no_timeout)
_add("EVAL", "T", broken.no_eval)
_add("bytes", "E", broken.decoded_claims)
_add("the server's word for a refusal", "T", Patch("flashsale._rules.redis_errors._word", lambda _: None))
_add("the end of the connection", "T", Patch("flashsale._sync.transport.link.is_stale", lambda _: False))
_add(
    "the second look at the Sentinels",
    "T",
    Patch("flashsale._sync.transport.topology.SentinelTopology.forget", lambda *_: None),
)
_add(
    "the second look at the Cluster",
    "T",
    Patch("flashsale._sync.transport.topology.ClusterTopology.forget", lambda *_: None),
)
_add("the redirect", "T", Patch("flashsale._sync.transport.topology.ClusterTopology.redirect", lambda *_, **__: None))
_add("WAIT", "E", Patch("flashsale._rules.durability.Guarantee.is_met", lambda *_: True))
_add("WAIT and its answer", "E", broken.no_wait)
_add("the write before WAIT", "E", broken.no_write_before_wait)
_add("the append-only file", "E", broken.no_append_only_file)
_add(
    "the one script",
    "E",
    Lua(
        "reserve",
        'redis.call("LPUSH", KEYS[3], unpack(bodies))',
        'redis.call("LPUSH", KEYS[3] .. ":aside", unpack(bodies))',
    ),
    broken.push_by_itself,
)
_add("the transaction", "E", broken.no_transactions)
_add("the check of the server", "O", Patch("flashsale._sync.sale.judge", lambda *_, **__: ()))
_add("the clock of Redis", "E L", Tell("own_clock"))
_add("connections of a process' own", "O T", Tell("inherits"))
_add("the end of a connection in the midst of a reply", "T", broken.kept_in_midst, api=AIO)

# -- callers that wait, and exceptions that strike ---------------------------------------------------------------------

_WAITING = "transport.waiting"
_add(
    "the count of all who wait",
    "T",
    *(Patch(f"flashsale.{api}.{_WAITING}.Callers.check", lambda _: None) for api in ("aio", "_sync")),
)
_add("one deadline for a call", "T", broken.a_time_for_each_step)
_add(
    "the main thread goes alone",
    "T",
    *(Patch(f"flashsale._sync.transport.{name}.in_main_thread", lambda: False) for name in ("coalescer", "waiting")),
)
_add(
    "who shares a call is answered",
    "T",
    Patch("flashsale.aio.transport.coalescer.Coalescer._landed", lambda *_: None),
    api=AIO,
)

# -- the log ----------------------------------------------------------------------------------------------------------

_add("the count of repeats", "T", Patch("flashsale._rules.rate_limited_log.EVERY", 0.0))
_add("the line about a dead letter", "T", Patch("flashsale.OrderQueue._say_dead", lambda *_: None))
_add("the line about the database", "T", Patch("flashsale.Worker._tell_failure", lambda *_: None))

# -- what comes from outside ------------------------------------------------------------------------------------------

_add("the cap on the length", "T", Patch("flashsale.model.checks.MAX_BODY", 10**9))
_add("the cap on the depth", "T", Patch("flashsale.model.checks.MAX_DEPTH", 10**9))
_add("the check in Python", "O T", Patch("flashsale.model.checks.check_int", lambda _name, value, *_: value))
_add("fullmatch", "O T", Patch("flashsale.model.checks._checked", broken.prefix))
_add("the check of ids", "O T", Patch("flashsale.model.checks._checked", lambda _name, value, *_: value))
_add("the check of an item", "T", Patch("flashsale._sync.view_cache.check_goods_id", lambda goods_id: goods_id))
_add("the check of a basket", "T", Patch("flashsale._sync.purchases.check_pairs", lambda _, items: items))
_add("the time of a tombstone", "T", Patch("flashsale._sync.transitions.replace", lambda order, **_: order))

# -- web processes and shared caches ----------------------------------------------------------------------------------

_add("the names of a shop's keys", "E", broken.all_keys)
_add("no command of a shop replaces a key", "E", broken.may_set)
_add("no cookie in a shared cache", "E", Patch("flashsale.web.is_shared", lambda _: False))
_add(
    "a signal after the commit",
    "what is rolled back is not told",
    Patch("flashsale.contrib.django.store.DjangoStore.on_commit", lambda _, call: call() or True),
)


# -- what the database has decided ------------------------------------------------------------------------------------

_add(
    "the state that stands",
    "T",
    Patch("flashsale._sync.transitions.Transitions._follow_or_log", Transitions.follow),
    Patch("flashsale._sync.transitions.Transitions._bring_or_log", Transitions._bring),
)
_add("the syncer's look at the rows", "L", Patch("flashsale._sync.auditor.Auditor.reconcile", lambda *_: 0))
_add("the row of a request", "O", Patch("flashsale.stores.SQLAlchemyStore.restock_once", broken.restock_again))
_add("the look at the database", "T", Patch("flashsale._sync.stores.base.RowStore.find", None))
_add("the distrust of the ledger", "E", Patch("flashsale._sync.auditor.Auditor.repair", broken.trusting_repair))


# -- the trail --------------------------------------------------------------------------------------------------------

_TRAIL = "each command leaves one entry, with what it wrote"
_TRAILED = "flashsale._sync.stores.trailed.TrailedRowStore"
_add("the entry in the transaction", _TRAIL, Patch(f"{_TRAILED}._writing", RowStore._writing))
_add("the entry is rolled back", _TRAIL, Patch(f"{_TRAILED}._carrying", broken.note_apart))
_add("an entry is of its thread", _TRAIL, Patch("flashsale._rules.trail._NOTED", broken.OfAllThreads()))
_add("one row of a command", _TRAIL, Patch(f"{_TRAILED}._end", broken.note_again))

# -- who kills them ---------------------------------------------------------------------------------------------------

BROKEN = (AssertionError, pytest.fail.Exception)  # the second one is what `pytest.raises` says


# -- hooks in the store's transaction ---------------------------------------------------------------------------------

_SHOPS = "the shop's tables agree with the sale's"
_add("the savepoint of saved", _SHOPS, Patch("flashsale.stores.SQLAlchemyStore.savepoint", broken.no_savepoint))
_add("units of a refused order return", "L", Patch(f"{_HOOKED}._refuse", broken.keep_units))
_add("saved is called again", _SHOPS, Patch(f"{_HOOKED}._ask", broken.ask_once))
_add("a raise is granted at once", _SHOPS, Patch(f"{_HOOKED}._write_goods", broken.grant_later))
_add("a purged sale grants what is booked", _SHOPS, Patch(f"{_HOOKED}._grant_booked", lambda *_: None))
_add("a purged sale gives back what is released", _SHOPS, Patch(f"{_HOOKED}._give_back", RowStore._give_back))
_add("a hook stops only its order", "E", Patch("flashsale._sync.worker.HookFailed", RowRefused))
_add("a hook stops only its item", _SHOPS, Patch("flashsale._sync.syncer.HookFailed", CorruptState))
_add("what a query of a hook's finds", "E", Patch("flashsale._sync.stores.sqlalchemy.StatementError", SQLAlchemyError))
_add("what a driver cannot send", "E", Patch("flashsale._rules.sqlstates._is_drivers_own", lambda _: False))
_add("what a hook has swallowed", "E", Patch("flashsale._rules.sqlstates._ABORTED", "?"))
_add("nothing is restocked after the purge", _SHOPS, Patch(f"{_MOVED}._add_units", RowStore._add_units))
_add("the time of its order", "T", Patch(f"{_MOVED}._complete", lambda *_: None))
_add("a raise that was taken back", _SHOPS, Patch("flashsale._sync.syncer.Syncer._sync", broken.sync_by_total))

_add("no total above the host's", "O", Lua("configure", "math.min(goods.booked, goods.total)", "goods.booked"))

# -- partitions ------------------------------------------------------------------------------------------------------

_TRANSFERS = "flashsale._sync.partitions.transfers.Transfers"
_add("the answer of WAIT behind a move", "O", Patch(f"{_TRANSFERS}._run_behind", broken.move_at_once))
_add("units for orders that came back", "O", Lua("survey", "show(here.left)", "show(math.max(0, here.left))"))
_add(
    "the room of each partition",
    "one partition stops no other",
    Patch("flashsale._sync.partitions.sale.PartLink", lambda link, *_: link),
)
_add(
    "what a deaf partition tells at once",
    "one partition stops no other",
    Patch("flashsale._sync.partitions.part_link.BUYERS", frozenset()),
)

# -- recorder --------------------------------------------------------------------------------------------------------

_COUNTED = "each purchase is counted once"
_RECORDER, _BOUNDED = "flashsale._sync.recorder.Recorder", "the recorder's memory is bounded"
_add("what was told", _COUNTED, Patch(f"{_RECORDER}._take", lambda recorder: recorder._refusals.counts))
_add("a replay is no purchase", _COUNTED, Patch("flashsale._rules.tally.Tally.batch", broken.count_replays))
_add("the sale that is told", "a purged sale stays gone", Lua("tell", 'redis.call("EXISTS", KEYS[1]) == 0', "false"))
_add("the bound of the samples", _BOUNDED, Lua("sample", "length > tonumber(ARGV[1])", "false"))
_add(
    "samples beside the pass",
    "rates are there when the database hangs",
    Patch("flashsale._sync.syncer.repeating", broken.never),
)
_add("minutes are forgotten", _BOUNDED, Patch(f"{_RECORDER}._forget_minutes", lambda *_: None))
_add("a child counts from zero", _COUNTED, Patch(f"{_RECORDER}._reset", broken.keep_counts))


# -- partitions: units that move --------------------------------------------------------------------------------------

_CONSERVED, _SOLD_OUT = "units move, none is gone", "no SOLD_OUT while a unit is free"
_MOVES = 'redis.call("HINCRBY", KEYS[first + 1], "moves", "1")'
_TRANSFERS = "flashsale._sync.partitions.transfers.Transfers"
_add("a policy leaves the total of a partition", _CONSERVED, broken.configure_the_total)
_add("the gate reads the total in the script", _CONSERVED, Lua("mirror", "stock[1] or ARGV[1]", "ARGV[1]"))
_add("no verdict at the deadline", _SOLD_OUT, broken.verdict_at_the_deadline)
_add("a verdict is forgotten", _SOLD_OUT, Patch(f"{_TRANSFERS}.forget", lambda *_: None))
_add("an error of those who are asked again", "T", broken.one_error_for_all)
_add("the breaker", "dry partitions do not pile up", broken.no_breaker)
_add(
    "a move leaves what slots hold",
    "a ticket is worth its units",
    Lua("debit", "math.min(goods.total - goods.booked, count - access)", "goods.total - goods.booked"),
)
_add("the epoch of a landing", _CONSERVED, Lua("landed", "if refused then", "if false then"))
_add("the second look", _SOLD_OUT, broken.one_look)
_add("moves are counted", _SOLD_OUT, Lua("debit", _MOVES, ""), Lua("credit", _MOVES, ""))
_add(
    "the numbers that the receiver has seen",
    _CONSERVED,
    Lua("debit", "math.max(integer(seq), integer(ARGV[4])) + 1", "integer(seq) + 1"),
)
_add("a credit counts once", _CONSERVED, Lua("credit", "if seq <= last then", "if false then"))
_add("the epoch of a credit", _CONSERVED, Lua("credit", "refused = refused or here.code", "refused = here.code"))
_add("one open move of a pair", _CONSERVED, Lua("debit", 'if units ~= "0" then', "if false then"))


def kills(name: str, *, by: type[Exception] | tuple[type[Exception], ...] = ()) -> pytest.MarkDecorator:
    """The mark of a test that must fail without this mechanism: by an assertion, or by these errors too."""
    assert name in MUTANTS, name
    return pytest.mark.kills(name, by=by if isinstance(by, tuple) else (by,))


def without(name: str) -> pytest.MarkDecorator:
    """The mark of a test that says itself what goes wrong without this mechanism."""
    assert name in MUTANTS, name
    return pytest.mark.without(name)


def promises(tests: dict[str, Any], *, by: Any = ()) -> pytest.MarkDecorator:
    """Parametrizes a test with `promise`: each mutant's name, and the test that must fail with it."""
    cases = [pytest.param(test, id=name, marks=kills(name, by=by)) for name, test in tests.items()]
    return pytest.mark.parametrize("promise", cases)


class Killers:
    """A plugin of pytest that collects which tests kill which mutant."""

    NAME = "killers"

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(tryfirst=True)  # before any of them is deselected
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            test = item.nodeid.partition("[")[0].removeprefix("tests/")
            for mark in (*item.iter_markers("kills"), *item.iter_markers("without")):
                if test not in self.of[mark.args[0]]:
                    self.of[mark.args[0]].append(test)


def killers() -> dict[str, list[str]]:
    """Returns the tests that kill each mutant, by its name."""
    plugin = Killers()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "tests"], plugins=[plugin])
    assert code == 0, said.getvalue()[-2000:]
    return plugin.of


def main() -> int:
    killed = killers()
    print("| mutant | promise | tests that kill it |\n|---|---|---|")
    for mutant in MUTANTS.values():
        print(f"| {mutant.name} | {mutant.promise} | {', '.join(killed[mutant.name])} |")
    return int(any(not killed[name] for name in MUTANTS))


if __name__ == "__main__":
    sys.exit(main())
