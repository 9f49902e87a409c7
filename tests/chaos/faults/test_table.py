"""The table in docs/guarantees.md lists the rows that exist, and each with all it takes."""

from __future__ import annotations

from tests.chaos.faults import table


def test_the_table_is_that_of_the_rows() -> None:
    rows = table.rows()
    assert [row.number for row in rows] == [*range(1, 63)]
    good = {f"{row.test}[{case}]": "passed" for row in rows for case in row.cases}
    written = table.without_the_run(table.PAGE.read_text())
    assert written == table.without_the_run(table.render(good, "Last run: now")), "run: make guarantees"
