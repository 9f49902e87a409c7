"""Writes the page. Every figure comes from the run's JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from bench.harness import median
from bench.peers.one_sale import BURST
from bench.results import Figure, Results
from bench.targets import targets

SLOW = 1.2  # times the CPU time of the fastest calibration
BUSY = 1.2  # times the wall time of a calibration over its CPU time
METHOD = """\
All servers run on the same machine and are reached over loopback TCP, for every peer alike. Redis has one core, the
client another; PostgreSQL may use all, with fsync and durable commits on. The cases take turns, round by round, so
that a disturbance hits all of them alike. The tables show the median of the rounds, and in brackets the lowest and the
highest. A ratio is that of the medians of one run; its lowest and highest are taken round by round. Before and after
each section, a calibration loop of Python runs on both cores at once: it shows a slow or busy machine. A purchase names
its order id and carries no data. After each case the run checks that the units sold are those that were answered.
"""


def write(results: Results, page: Path) -> None:
    """Writes the page, and its plots beside it."""
    from bench.plots import draw

    page.write_text(text(results, draw(results, page.parent / "plots")))


def text(results: Results, plots: Sequence[str]) -> str:
    """Returns the page, with those plots that were drawn."""
    parts = ["# Benchmarks", *_head(results), *_targets(results)]
    for name, (title, section) in SECTIONS.items():
        if name in results.sections:
            parts += [f"## {title}", *_run(results, name), *_machine(results, name), *section(results, plots)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _head(results: Results) -> Iterator[str]:
    last = max((section["run"] for section in results.sections.values()), key=lambda run: run["when"])
    versions = ", ".join(f"{name} {version}" for name, version in last["packages"].items())
    databases = {section["postgres"] for section in results.sections.values() if "postgres" in section}
    yield "Written by `make bench`, which sets everything up, measures, and then writes this page. Do not edit."
    yield METHOD
    yield _rows(
        ["", ""],
        [
            ["when", last["when"]],
            ["command", f"`{last['command']}`"],
            ["machine", f"{last['cpu']}, {last['cores']} cores, {last['system']}"],
            ["servers", ", ".join([last["server"], *(f"PostgreSQL {version}" for version in sorted(databases))])],
            ["Python", f"{last['python']}; {versions}"],
            ["rounds", f"{last['rounds']}, {last['seconds']:g} s each where time decides"],
            ["load before the run", f"{last['load']:.2f}"],
        ],
    )
    if any(section["run"]["rounds"] < 5 for section in results.sections.values()):
        yield "**This was a smoke run: its figures mean nothing.**"
    if disturbed := [name for name in results.sections if _disturbances(results, name)]:
        yield (
            f"**The machine was slow or busy when it measured {', '.join(disturbed)}: those figures are too low, and"
            " their ratios unsure.**"
        )


def _run(results: Results, name: str) -> Iterator[str]:
    """Says when a section was measured, if that was in another run than the rest."""
    runs = {section["run"]["when"] for section in results.sections.values()}
    if len(runs) > 1:
        run = results.sections[name]["run"]
        yield f"Measured {run['when']} by `{run['command']}`, {run['rounds']} rounds."


def _machine(results: Results, name: str) -> Iterator[str]:
    """Says whether the machine was slow or busy, or else what the calibration loop took."""
    if reasons := _disturbances(results, name):
        yield f"**The machine was {', and '.join(reasons)}.**"
    elif loops := results.sections[name].get("calibration"):
        before, after = (loop["cpu"] for loop in loops)
        yield f"The calibration loop took {before:.2f} s of CPU before and {after:.2f} s after."


def _disturbances(results: Results, name: str) -> list[str]:
    """Returns why the figures of a section are too low. Only the load before the run is none of our own making."""
    section, reasons = results.sections[name], []
    run, fastest = section["run"], results.fastest()
    cpu, wall = _worst(section, lambda loop: loop["cpu"])
    if cpu > SLOW * fastest:
        reasons.append(f"slow: the calibration loop took {cpu:.2f} s of CPU, at its fastest {fastest:.2f} s")
    cpu, wall = _worst(section, lambda loop: loop["wall"] / loop["cpu"])
    if wall > BUSY * cpu:
        reasons.append(f"busy: the calibration loop took {wall:.2f} s, of which it ran {cpu:.2f} s")
    elif run["load"] > run["cores"]:
        reasons.append(f"busy: its load before the run was {run['load']:.1f} on {run['cores']} cores")
    return reasons


def _worst(section: dict, by: Callable[[dict], float]) -> tuple[float, float]:
    """Returns CPU and wall time of the calibration that has most of it; of no calibration none."""
    worst = max(section.get("calibration", []), key=by, default={"cpu": 0.0, "wall": 0.0})
    return worst["cpu"], worst["wall"]


def _targets(results: Results) -> Iterator[str]:
    yield "## Targets"
    rows = [[target.sentence, target.measured, target.spread, target.reached] for target in targets(results)]
    yield _rows(["target", "measured", "lowest to highest", "reached"], rows)


# -- sections -------------------------------------------------------------------------------------------------------


def _purchases(results: Results, plots: Sequence[str]) -> Iterator[str]:
    section = results.sections["purchases"]
    yield "One process sells one unit at a time to each caller, as fast as the callers come back."
    yield "### Purchases a second, asyncio, by callers"
    yield _plot("purchases", plots)
    yield _table(results, "purchases", "asyncio")
    yield "### Latency, ms: p50 / p99 / p99.9"
    yield _plot("latency", plots)
    yield _table(results, "purchases", "asyncio", ("p50", "p99", "p999"))
    yield "### Purchases a second, threads"
    yield "Unpinned, the client's threads may run on both cores, as they do by default."
    yield _plot("threads", plots)
    yield _table(results, "purchases", "threads")
    yield "Latency, ms: p50 / p99 / p99.9"
    yield _table(results, "purchases", "threads", ("p50", "p99", "p999"))
    yield "### Purchases a second, PostgreSQL alone, by connections"
    yield _table(results, "purchases", "PostgreSQL")
    yield "Latency, ms: p50 / p99 / p99.9"
    yield _table(results, "purchases", "PostgreSQL", ("p50", "p99", "p999"))
    yield "### How near to the limit of Redis"
    yield "The same script with prepared calls, always four of them in flight: this is the limit of the Redis core."
    yield _table(results, "purchases", "limit")
    yield from _share(results)
    if slow := section.get("slow_calls"):
        yield (
            f"Script calls in the slow log (over 10 ms): {slow['alone']} in the cases that leave Redis a core,"
            f" {slow['shared']} in those whose clients run there as well. The slow log counts elapsed time, so it also"
            " has scripts that waited because another program used their core."
        )
    yield f"Where the client's CPU goes, by {section['profile']['callers']} callers, sampled:"
    cpu = section["profile"]["cpu"]
    rows = [[f"`{place}`", f"{share:.1%}", f"{share * cpu:.2f}"] for place, share in section["profile"]["places"]]
    yield _rows(["function, C code that it calls included", "share", f"us of {cpu:.2f} per purchase"], rows)
    yield "### Who is compared"
    rows = [
        [peer, about["configuration"], about["idempotent"], about["capped"], about["queue"]]
        for peer, about in section["peers"].items()
    ]
    yield _rows(["peer", "configuration", "idempotent", "capped", "sure to reach the database"], rows)


def _share(results: Results) -> Iterator[str]:
    limit = results.figure("purchases", "limit", "the script, back to back", "128 a call")
    rows = []
    for peer in ("flashsale", "flashsale (uvloop)"):
        rate = results.figure("purchases", "asyncio", peer, "512")
        cpu = results.figure("purchases", "asyncio", peer, "512", "cpu")
        if limit and rate and cpu:
            times = 1e6 / rate.median, cpu.median, 1e6 / limit.median
            rows.append([peer, _share_of(rate, limit), *(f"{each:.2f}" for each in times)])
    if rows:
        header = [
            "512 callers",
            "share of the limit",
            "us per purchase",
            "CPU us of the client",
            "us of Redis at its limit",
        ]
        yield _rows(header, rows)


def _gate(results: Results, plots: Sequence[str]) -> Iterator[str]:
    yield _plot("gate", plots)
    yield "### Admissions a second, asyncio, by callers"
    yield _table(results, "gate", "admitted")
    yield "### Refusals a second"
    yield (
        "By Redis: the item is sold out, and every caller asks Redis. In process: before the sale, one caller asks"
        " again and again; one call every 50 ms goes to Redis. The measuring loop around an empty call is shown for"
        " comparison."
    )
    yield _table(results, "gate", "refused")
    yield "### The sold-out storm"
    yield "Requests a second of a crowd; one in twenty arrives before the last unit is gone."
    yield _table(results, "gate", "storm")
    yield _rows(["way", "configuration"], [list(way) for way in results.sections["gate"]["ways"].items()])


def _queue(results: Results, plots: Sequence[str]) -> Iterator[str]:
    yield (
        "Orders are enqueued one by one and consumed by one process on the client's core, with a handler that does"
        " nothing or inserts one row. The time is taken from the first tenth of the orders to the last one. `buy`"
        " enqueues in the script that sells, so the purchases above include it."
    )
    yield _plot("queue", plots)
    queues = results.sections["queue"]["queues"]
    rows = []
    for peer, about in queues.items():
        cells = [
            _cell(results.rounds("queue", table, peer, None, figure))
            for table, figure in (("no-op", "enqueue"), ("no-op", "rate"), ("PostgreSQL", "rate"))
        ]
        rows.append([peer, *cells, about["at_least_once"]])
    yield _rows(["", "enqueued /s", "consumed /s, no-op", "into PostgreSQL /s", "survives a killed consumer"], rows)
    yield from _errors(results, "queue")
    yield _rows(
        ["queue", "configuration", "orders measured: no-op, PostgreSQL"],
        [
            [peer, about["configuration"], ", ".join(f"{jobs:,}" for jobs in about["jobs"])]
            for peer, about in queues.items()
        ],
    )


def _aof(results: Results, plots: Sequence[str]) -> Iterator[str]:
    yield "Purchases a second with an append-only file; Redis rewrites no file meanwhile."
    yield _plot("aof", plots)
    yield _table(results, "aof", "aof")


def _growth(results: Results, plots: Sequence[str]) -> Iterator[str]:
    yield "Purchases a second, in bursts, by the number of orders in the ledger:"
    yield _plot("growth", plots)
    yield _table(results, "growth", "growth")
    yield "Bytes of Redis per order, while it is queued / once the list is empty (ledger and buyer remain):"
    yield _table(results, "growth", "memory", ("queued", "kept"), digits=0)
    yield "Time of one script call by the number of orders in it, microseconds of Redis (commandstats):"
    yield _plot("script", plots)
    yield _table(results, "growth", "script", ("time",), digits=1)


def _web(results: Results, plots: Sequence[str]) -> Iterator[str]:
    section = results.sections["web"]
    yield (
        f"Requests a second of `POST /buy/phone`, each with a new order id, over {section['connections']}"
        f" connections by {section['generator']}. The web process has a core; Redis and the load generator share the"
        " other."
    )
    yield ("`no Redis at all` is the same endpoint, answering at once: this is the limit of server and framework.")
    yield _plot("web", plots)
    yield _table(results, "web", "web")
    yield from _ceiling(results)
    yield "Latency, ms: p50 / p99 / p99.9"
    yield _table(results, "web", "web", ("p50", "p99", "p999"))
    yield _rows(["server", "configuration"], [list(way) for way in section["ways"].items()])


def _ceiling(results: Results) -> Iterator[str]:
    """Says how much of a request is the web server's own."""
    for record in results.records("web", "web"):
        server, ceiling = record["peer"], Figure.of(record["figures"].get("rate", []))
        selling = results.figure("web", "web", server, "flashsale")
        if record["load"] == "no Redis at all" and ceiling and selling:
            yield f"{server}: an endpoint that sells reaches {_share_of(selling, ceiling)} of one that does nothing."


def _shops(results: Results, plots: Sequence[str]) -> Iterator[str]:
    section = results.sections["shops"]
    yield (
        "The three [example shops](../examples/README.md), each opened by its command, with its own Redis, worker and"
        f" syncer and with SQLite. wrk visits them in turn over {section['connections']} connections. Everything shares"
        " this machine's cores, wrk too. A visitor without a cookie is a new buyer, and no CDN caches an answer."
    )
    yield "### Requests a second"
    yield _table(results, "shops", "shops")
    yield "Latency, ms: p50 / p99 / p99.9"
    yield _table(results, "shops", "shops", ("p50", "p99", "p999"))
    yield _rows(["shop", "configuration"], [list(way) for way in section["ways"].items()])
    yield "### Consistency after the load"
    yield (
        "Every order that was answered `202` must be in the database, and no unit may be sold twice, or the run fails."
        " Unheard: orders whose buyer never got the answer, because wrk hangs up while answers are on their way."
    )
    header = ["shop", "answered 202", "orders in the database", "unheard"]
    rows = [
        [book["shop"], *(f"{book[name]:,}" for name in ("accepted", "saved", "unheard"))] for book in section["books"]
    ]
    yield _rows(header, rows)


def _scale(results: Results, plots: Sequence[str]) -> Iterator[str]:
    section = results.sections["scale"]
    yield (
        f"One sale over several primaries, each of them a Redis of its own that is held to {section['share']:.0%} of a"
        f" core by {section['limiter']}: so one small machine has room for eight, and the client does not limit them."
        " Each primary has 512 callers, all in one asyncio process, which name no order ids. With one primary this is a"
        " sale without partitions. After each case the run checks that as many units are gone as orders were answered,"
        " and that workers have saved each of them."
    )
    yield "### By primaries, each held to its share"
    yield _by_primaries(results)
    yield (
        "Times: beside one primary, of the same run; lowest and highest round by round. A refusal that is checked looks"
        " twice at every partition, so more primaries do not check more often; callers share a check. A refusal in"
        f" process asks no Redis. {_busiest_client(results)}"
    )
    yield "### CPU of a purchase, by partitions"
    yield "512 callers, one Redis, which is not held: what it costs that batches get smaller."
    figures = {
        "client, us": ("cpu", ".2f"),
        "Redis, us": ("redis", ".2f"),
        "bytes to Redis": ("to redis", ",.0f"),
        "bytes from Redis": ("from redis", ",.0f"),
    }
    yield _by_partitions(results, "cpu", figures)
    yield "### One caller"
    yield (
        "A partition on each Redis, two where there are 16, none of them held. *Fetches*: the buyer's partition has one"
        " unit, and two are wanted. *Sold out*: two looks at all partitions have found too few; nothing is remembered."
        " CPU is that of all partitions together."
    )
    figures = {}
    for kind, name in {"purchase": "a purchase", "fetch": "a purchase that fetches", "sold out": "sold out"}.items():
        figures |= {f"{name}, ms: p50": (kind, ".2f"), f"{name}, ms: p99": (f"{kind} p99", ".2f")}
        figures[f"{name}, us of Redis"] = (f"{kind} redis", ",.0f")
    yield _by_partitions(results, "alone", figures)
    yield from _before(results)
    yield from _errors(results, "scale")


def _by_primaries(results: Results) -> str:
    records = [record for table in ("purchases", "drained", "refused") for record in results.records("scale", table)]
    loads = sorted({record["load"] for record in records}, key=int)
    rows = []
    for table, peer in dict.fromkeys((record["table"], record["peer"]) for record in records):
        figures = {load: results.figure("scale", table, peer, load) for load in loads}
        rows.append([f"{table}, {peer}", *(_cell(figure.rounds) if figure else "" for figure in figures.values())])
        one = figures[loads[0]] or results.figure("scale", table, "one partition each", loads[0])
        times = [figure and figure.over(one) for figure in figures.values()]
        if table == "purchases":
            costs = [results.figure("scale", table, peer, load, "redis") for load in loads]
            rows.append(["CPU us of Redis", *(f"{cost.median:.2f}" if cost else "" for cost in costs)])
        rows.append(["times", *(_times(each, ".2f") if each else "" for each in times)])
    return _rows(["a second", *(f"{load} primar{'y' if load == '1' else 'ies'}" for load in loads)], rows)


def _busiest_client(results: Results) -> str:
    shares = [
        median(record["figures"]["cpu"]) * median(record["figures"]["rate"]) / 1e6
        for record in results.records("scale", "purchases")
        if "cpu" in record["figures"]
    ]
    return f"The client that sells took {max(shares):.0%} of a core at most." if shares else ""


def _by_partitions(results: Results, table: str, figures: dict[str, tuple[str, str]]) -> str:
    records = results.records("scale", table)
    rows = []
    for name, (figure, form) in figures.items():
        values = [record["figures"].get(figure, []) for record in records]
        rows.append(
            [
                name,
                *(f"{Figure.of(each).median:{form}} {_between(each, form)}".strip() if each else "" for each in values),
            ]
        )
    return _rows(["partitions", *(record["load"] for record in records)], rows)


def _between(values: Sequence[float], form: str) -> str:
    return f"({min(values):{form}}-{max(values):{form}})" if len(values) > 1 else ""


def _before(results: Results) -> Iterator[str]:
    """Says what a sale with one partition costs beside the code from before there were any."""
    yield "### One partition beside the code before"
    commit = results.sections["scale"]["before"]
    for record in results.records("scale", "before"):
        yield (
            f"A sale with one partition is the code path that there always was; commit `{commit}` is the last one"
            " before partitions. Both run in processes of their own, with a sale each on one Redis, and take turns,"
            f" {BURST:,} purchases at a time; a round is the median of its turns."
        )
        rows = []
        for part in ("client", "redis"):
            now, before = (Figure.of(record["figures"].get(f"{when} {part}", [])) for when in ("now", "before"))
            if now and before:
                ratio = now.over(before)
                rows.append(
                    [f"CPU us a purchase, {part}", f"{before.median:.2f}", f"{now.median:.2f}", _times(ratio, ".3f")]
                )
        yield _rows(["", "before", "now", "times"], rows)
        return
    yield "Not measured: the repository has no history here."


SECTIONS = {
    "purchases": ("Purchases", _purchases),
    "gate": ("Gate", _gate),
    "queue": ("Queue", _queue),
    "aof": ("Append-only file", _aof),
    "growth": ("Growth", _growth),
    "web": ("A web process", _web),
    "shops": ("The example shops", _shops),
    "scale": ("One sale over several primaries", _scale),
}


# -- Markdown -------------------------------------------------------------------------------------------------------


def _table(results: Results, section: str, table: str, figures: Sequence[str] = ("rate",), digits: int = 2) -> str:
    """Returns a table of peers by loads: of a rate with its extremes, of several figures their medians."""
    records = results.records(section, table)
    loads = list(dict.fromkeys(record["load"] for record in records))
    loads.sort(key=lambda load: int(load) if load.isdigit() else 0)
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        values = [record["figures"].get(figure, []) for figure in figures]
        if figures == ("rate",):
            text = _cell(values[0])
        else:
            text = " / ".join(f"{median(each):,.{digits}f}" for each in values if each)
        rows.setdefault(record["peer"], {})[record["load"]] = text or "failed"
    header = ["", *(f"{int(load):,}" if load.isdigit() else load for load in loads)]
    body = _rows(header, [[peer, *(cells.get(load, "") for load in loads)] for peer, cells in rows.items()])
    return "\n\n".join([body, *_errors(results, section, table)]) if figures == ("rate",) else body


def _errors(results: Results, section: str, table: str | None = None) -> Iterator[str]:
    for record in results.sections[section]["records"]:
        if "error" in record and table in {None, record["table"]}:
            yield f"Failed: {record['table']}, {record['peer']}, {record['load']}: {' '.join(record['error'].split())}"


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{median(values):,.0f}" + (f" ({min(values):,.0f}-{max(values):,.0f})" if len(values) > 1 else "")


def _times(ratio: Figure, form: str) -> str:
    """Returns a ratio, and in brackets the lowest and the highest round."""
    spread = ratio.spread(form)
    return f"{ratio.median:{form}}" + (f" ({spread})" if spread else "")


def _share_of(one: Figure, other: Figure) -> str:
    """Returns a ratio in percent, and in brackets the lowest and the highest round."""
    share = one.over(other)
    spread = share.spread(".0%")
    return f"{share.median:.0%}" + (f" ({spread})" if spread else "")


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plot(name: str, plots: Sequence[str]) -> str:
    return f"![{name}](plots/{name}.svg)" if name in plots else ""
