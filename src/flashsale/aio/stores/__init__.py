"""Stores for asyncio: the host's database behind a sale.

`SQLAlchemyStore` needs the extra `flashsale[sqlalchemy]` and a driver; `metadata` is the `sqlalchemy.MetaData` of its
tables, for Alembic. A store of your own is a `RowStore`, which needs neither, or follows
`flashsale.aio.AsyncOrderStore`; it passes the suite in `flashsale.testing`.
"""

from typing import TYPE_CHECKING

from flashsale.aio.stores.base import RowStore

if TYPE_CHECKING:
    from flashsale._sql.tables import METADATA as metadata  # noqa: N811 - a name of the API
    from flashsale.aio.stores.sqlalchemy import SQLAlchemyStore
else:

    def __getattr__(name: str) -> object:
        """Imports what is made with SQLAlchemy when it is asked for: whoever brings a store does without."""
        if name not in {"SQLAlchemyStore", "metadata"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from flashsale._sql.tables import METADATA  # noqa: PLC0415 - needs an extra
            from flashsale.aio.stores.sqlalchemy import SQLAlchemyStore  # noqa: PLC0415 - needs an extra
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise ImportError(f"{name} needs SQLAlchemy: pip install 'flashsale[sqlalchemy]'") from error
        globals().update(SQLAlchemyStore=SQLAlchemyStore, metadata=METADATA)
        return globals()[name]


__all__ = ["RowStore", "SQLAlchemyStore", "metadata"]
