"""Stores: the host's database behind a sale.

`SQLAlchemyStore` needs the extra `flashsale[sqlalchemy]` and a driver. A store of your own is a `RowStore`, which needs
neither, or follows `flashsale.OrderStore`; it passes the suite in `flashsale.testing`.
"""

from typing import TYPE_CHECKING

from flashsale._sync.stores.base import RowStore

if TYPE_CHECKING:
    from flashsale._sync.stores.sqlalchemy import SQLAlchemyStore
else:

    def __getattr__(name: str) -> object:
        """Imports `SQLAlchemyStore` when it is asked for: whoever brings a store needs no SQLAlchemy."""
        if name != "SQLAlchemyStore":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from flashsale._sync.stores.sqlalchemy import SQLAlchemyStore  # noqa: PLC0415 - needs an extra
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise ImportError("SQLAlchemyStore needs SQLAlchemy: pip install 'flashsale[sqlalchemy]'") from error
        globals()[name] = SQLAlchemyStore
        return SQLAlchemyStore


__all__ = ["RowStore", "SQLAlchemyStore"]
