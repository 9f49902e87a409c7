"""The targets that the library set itself, each held against the figures of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bench.results import Figure, Results

ONE_BY_ONE = ("redis.asyncio", "redis.asyncio, 64 connections")
QUEUES = ("rq", "dramatiq", "celery", "huey", "arq", "saq")
Get = Callable[..., Figure | None]


_FORMS = {"x": ",.2f", "%": ".1f", "/s": ",.0f"}


class Target(NamedTuple):
    """One line of the table.

    Args:
        sentence: what was aimed at.
        figure: what was measured, or None; its median is judged.
        wanted: at least this, or with `at_most` at most.
        unit: `x` for a ratio, `%`, or `/s`.
        note: what the figure is made of.
    """

    sentence: str
    figure: Figure | None
    wanted: float
    unit: str
    note: str = ""
    at_most: bool = False

    @property
    def measured(self) -> str:
        if self.figure is None:
            return "not measured"
        unit = f" {self.unit}" if self.unit == "%" else self.unit
        return f"{self.figure.median:{_FORMS[self.unit]}}{unit} {self.note}".strip()

    @property
    def spread(self) -> str:
        return "" if self.figure is None else self.figure.spread(_FORMS[self.unit])

    @property
    def reached(self) -> str:
        if self.figure is None:
            return ""
        median = self.figure.median
        return "yes" if (median <= self.wanted if self.at_most else median >= self.wanted) else "**no**"


def targets(results: Results) -> Iterator[Target]:
    """Yields every target; ratios are of one run."""
    get = results.figure
    yield from _purchases(get)
    yield from _gate(get)
    yield from _queue(get)
    for table in ("the script, back to back, 128 a call", "flashsale, 512 callers"):
        for policy, most in (("everysec", 15), ("always", 50)):
            kept = _ratio(get("aof", "aof", table, policy), get("aof", "aof", table, "off"))
            cost = None if kept is None else _cost(kept)
            yield Target(f"AOF {policy} costs under {most} %", cost, most, "%", f"({table})", at_most=True)
    ratio = _ratio(*(get("growth", "growth", "flashsale, 512 callers", size) for size in ("1000000", "1000")))
    yield Target("1,000,000 orders in the ledger: at least 0.9x the throughput at 1,000", ratio, 0.9, "x")
    yield from _scale(get)


def _purchases(get: Get) -> Iterator[Target]:
    def ours(callers: str, suffix: str = "") -> Figure | None:
        return get("purchases", "asyncio", "flashsale" + suffix, callers)

    def best(callers: str | None, *peers: str) -> Figure | None:
        return _most(get("purchases", "asyncio", peer, callers) for peer in peers)

    for callers, times in (("512", 12), ("64", 5), ("1", 1)):
        for suffix in ("", " (uvloop)"):
            peers = [peer + suffix for peer in ONE_BY_ONE]
            ratio = _ratio(ours(callers, suffix), best(callers, *peers))
            plural = "s" if callers != "1" else ""
            both = ", both on uvloop" if suffix else ""
            sentence = f"{callers} caller{plural}: at least {times}x redis.asyncio's one EVALSHA per call{both}"
            yield Target(sentence, ratio, times, "x")
    yield Target("512 callers: at least 100,000 purchases a second", ours("512"), 100_000, "/s")
    glide = best("512", "valkey-glide", "valkey-glide, on both cores")
    yield Target("512 callers: at least 3x valkey-glide", _ratio(ours("512"), glide), 3, "x")
    for count in ("32", "128"):
        pool = get("purchases", "threads", "redis-py", count)
        ratio = _ratio(get("purchases", "threads", "flashsale", count), pool)
        yield Target(f"{count} threads, unpinned: at least 3x the redis-py pool", ratio, 3, "x")
    ratio = _ratio(ours("512"), get("purchases", "PostgreSQL", "PostgreSQL UPDATE + INSERT"))
    yield Target("At least 75x PostgreSQL's UPDATE + INSERT", ratio, 75, "x", "(its best number of connections)")
    recipe = _most([best(None, "the article's recipe"), get("purchases", "threads", "the article's recipe, pinned")])
    at_best = _ratio(ours("512"), recipe)
    note = _beside(at_best, "its best", "both with 512 callers")
    ratio = _ratio(ours("512"), best("512", "the article's recipe"))
    yield Target("At least 60x the article's literal recipe", ratio, 60, "x", note)


def _gate(get: Get) -> Iterator[Target]:
    ours = get("gate", "admitted", "flashsale", "512")
    three = {callers: get("gate", "admitted", "three round trips", callers) for callers in ("1", "64", "512")}
    at_best = _ratio(ours, _most(three.values()))
    note = _beside(at_best, "its best number of callers", "512 callers")
    ratio = _ratio(ours, three["512"])
    yield Target("Gate: at least 60x three round trips", ratio, 60, "x", note)
    yield Target("Gate: at least 300,000 admissions a second from one process", ours, 300_000, "/s", "(512 callers)")
    for call, api, wanted in (
        ("enter", "asyncio", 3_000_000),
        ("enter", "sync", 8_000_000),
        ("buy", "asyncio", 500_000),
        ("buy", "sync", 500_000),
    ):
        figure = get("gate", "refused", f"in process: {call}, {api}")
        yield Target(f"Refused in process by `{call}`, {api}: at least {wanted:,} a second", figure, wanted, "/s")
    for suffix, call in (("", "enter"), (", buy", "buy")):
        ratio = _ratio(get("gate", "storm", "flashsale" + suffix), get("gate", "storm", "one script" + suffix))
        yield Target(f"Sold-out storm on `{call}`: at least 100x the one-EVALSHA code", ratio, 100, "x")


def _queue(get: Get) -> Iterator[Target]:
    def ours(table: str) -> Figure | None:
        return _most(get("queue", table, peer) for peer in ("flashsale", "flashsale.aio"))

    def brpop(table: str, sentence: str) -> Target:
        ratio, threads = (_ratio(ours(table), get("queue", table, peer)) for peer in ("BRPOP", "BRPOP, threads"))
        return Target(sentence, ratio, 15, "x", _beside(threads, "several threads", "one loop"))

    yield brpop("no-op", "Queue, no-op handler: at least 15x BRPOP")
    ratio = _ratio(ours("no-op"), _most(get("queue", "no-op", peer) for peer in QUEUES))
    yield Target("Queue, no-op handler: at least 40x the best of the task queues", ratio, 40, "x")
    drained = ours("PostgreSQL")
    yield Target("Drain into PostgreSQL with the guard: at least 30,000 orders a second", drained, 30_000, "/s")
    yield brpop("PostgreSQL", "Drain into PostgreSQL with the guard: at least 15x BRPOP + INSERT")


def _scale(get: Get) -> Iterator[Target]:
    def sold(primaries: str) -> Figure | None:
        return get("scale", "purchases", "one partition each", primaries)

    for primaries, times in (("2", 1.9), ("4", 3.7), ("8", 6.5)):
        ratio = _ratio(sold(primaries), sold("1"))
        yield Target(f"One sale over {primaries} primaries: at least {times}x the purchases of one", ratio, times, "x")
    for part in ("client", "redis"):
        now, before = (get("scale", "before", "one partition", "512", f"{when} {part}") for when in ("now", "before"))
        sentence = f"One partition costs under 2 % more CPU a purchase than the code before partitions: {part}"
        more = _ratio(now, before)
        more = more and Figure(100 * (more.median - 1), tuple(100 * (each - 1) for each in more.rounds))
        yield Target(sentence, more, 2, "%", at_most=True)


def _ratio(one: Figure | None, other: Figure | None) -> Figure | None:
    return one and one.over(other)


def _most(figures) -> Figure | None:
    return max((figure for figure in figures if figure is not None), key=lambda figure: figure.median, default=None)


def _cost(kept: Figure) -> Figure:
    """Returns how many percent of the rate are lost when this share is kept."""
    return Figure(100 * (1 - kept.median), tuple(100 * (1 - share) for share in kept.rounds))


def _beside(ratio: Figure | None, of: str, note: str) -> str:
    """Returns a note with a second ratio, where there is one."""
    if ratio is None:
        return f"({note})"
    spread = ratio.spread(".1f")
    return f"({note}; {ratio.median:.1f}x {of}" + (f", {spread})" if spread else ")")
