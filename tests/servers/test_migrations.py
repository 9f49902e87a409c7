"""docs/migrations.md, followed in an empty folder with a real Alembic, on each database."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import alembic.config
import pytest
import sqlalchemy

from flashsale import Goods, Order, OrderState
from flashsale._sql.engines import DRIVERS, database_url
from flashsale.stores import SQLAlchemyStore, metadata
from tests.support.sales import of_the_release_before

PAGE = (Path(__file__).parent.parent.parent / "docs" / "migrations.md").read_text()
BLOCKS = re.findall(r"^```(python|console)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
CONSOLE = "".join(text for kind, text in BLOCKS if kind == "console")

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


class Project:
    """A shop with Alembic in this folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        (folder / "models.py").write_text(MODELS)
        self.alembic("init migrations")
        self._change("alembic.ini", "driver://user:pass@localhost/dbname", url.replace("%", "%%"))
        self._change("migrations/env.py", "fileConfig(config.config_file_name)", "pass")  # the tests have their own log

    def alembic(self, line: str) -> str:
        """What the command writes."""
        sys.modules.pop("models", None)
        command, written = alembic.config.CommandLine(), io.StringIO()
        options = command.parser.parse_args(shlex.split(line))
        command.run_cmd(alembic.config.Config("alembic.ini", stdout=written, cmd_opts=options), options)
        return written.getvalue()

    def replay(self) -> None:
        """Types what the page shows, and reads what it shows."""
        for command, shown in re.findall(r"^\$ alembic (.*)\n((?:[^$\n].*\n)*)", CONSOLE, re.MULTILINE):
            assert shown in self.alembic(command)

    def put(self, block: str, *, include: bool = False) -> None:
        """Puts a block of the page into env.py."""
        self._change("migrations/env.py", "target_metadata = None", block)
        if include:
            self._change(
                "migrations/env.py", "target_metadata=target_metadata", "include_object=include_object, \\g<0>"
            )

    def _change(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        text, count = re.subn(re.escape(old), new if "\\g" in new else lambda _: new, file.read_text())
        assert count
        file.write_text(text)


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    url = f"sqlite:///{tmp_path}/shop.db" if request.param == "sqlite" else request.getfixturevalue(request.param)
    named = database_url(url, DRIVERS).render_as_string(hide_password=False)  # Alembic chooses no driver of ours
    return Project(named, tmp_path)


on_each_database = pytest.mark.parametrize(
    "project", ["sqlite", "fresh_postgres_url", "fresh_mysql_url"], indirect=True
)


@on_each_database
def test_alembic_makes_and_upgrades_the_tables(project: Project) -> None:
    of_the_page = next(text for text in PYTHON if text.startswith("# migrations/env.py\n"))
    project.put(of_the_page)
    project.replay()
    with SQLAlchemyStore(project.url, "nov11") as store:
        store.put_goods(Goods("phone", 2))
        assert store.save([Order("o-1", "phone", "ann", 1)]).inserted == {"o-1"}
        with store.transaction() as connection:
            for statement in of_the_release_before(connection.dialect.name):
                connection.exec_driver_sql(statement)
            inspector = sqlalchemy.inspect(connection)
            assert not inspector.has_table("flashsale_requests")
        project.replay()
        assert store.restock_once("phone", 1, "r-1")[1] == 3
        order = Order("o-1", "phone", "ann", 1)
        assert store.settle(order, OrderState.CANCELLED) is OrderState.CANCELLED
        assert [row.order for row, _ in store.settled(0.0)] == [order]
        assert [event.event_id for event in store.events(now=1e10)] == [1]
        store.delivered([1])
        assert store.save([Order("o-2", "phone", "ann", 1)]).inserted == {"o-2"}
        store.settle(Order("o-2", "phone", "ann", 1), OrderState.CONFIRMED)
        assert [event.event_id for event in store.events(now=1e10)] == [2]  # no number twice, on SQLite too


@on_each_database
def test_alembic_leaves_the_tables_to_the_store(project: Project) -> None:
    own, alone = (text for text in PYTHON if "env.py" not in text or "left alone" in text)
    names: dict[str, Any] = {"database_url": project.url}
    exec(own, names)
    names["store"].close()
    project.put(alone, include=True)
    project.replay()
    with SQLAlchemyStore(project.url, "nov11") as store, store.transaction() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
    assert tables == {*metadata.tables, "customers", "alembic_version"}
