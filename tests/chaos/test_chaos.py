"""Half a minute of chaos; `python -m tests.chaos` is the long form."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import Options, main, play
from tests.support import servers
from tests.support.mutants import without

SHORT = Options(
    orders=400,
    worker_kills=3,
    redis_kills=2,
    cut_replies=15,
    database_faults=6,
    database_fault_seconds=2.0,
    lost_keys=6,
    moods=1,
    seed=1,
    seconds=60,
)


def test_nothing_is_lost_or_sold_twice(postgres: servers.Postgres, fresh_postgres_url: str) -> None:
    report = play(SHORT, fresh_postgres_url, print, postgres=postgres)
    print(report.table())
    assert report.wrong == []
    assert report.retries  # callers saw failures: what the library mends by itself is not all that happened
    assert report.orphaning  # some workers died with orders in hand


def test_elections_lose_nothing_that_was_replicated(fresh_postgres_url: str) -> None:
    options = Options(orders=150, worker_kills=1, redis_kills=1, elections=1, cut_replies=10, seed=1, seconds=60)
    report = play(options, fresh_postgres_url, print)
    print(report.table())
    assert report.wrong == []
    assert report.retries


@without("the order id in the script")
def test_the_proof_notices_an_order_that_is_booked_twice(fresh_postgres_url: str) -> None:
    report = play(Options(orders=60, worker_kills=0, redis_kills=0, cut_replies=10), fresh_postgres_url)
    assert any(line.startswith("units of ") for line in report.wrong)


def test_help_and_bad_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--help"], 0), (["--orders", "1"], 2)):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    assert "--worker-kills" in capsys.readouterr().out
