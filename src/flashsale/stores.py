"""Stores: the host's database behind a sale.

`SQLAlchemyStore` needs the extra `flashsale[sqlalchemy]` and a driver. A store of your own follows
`flashsale.OrderStore` and passes the suite in `flashsale.testing`.
"""

try:
    from flashsale._sync.stores.sqlalchemy import SQLAlchemyStore
except ModuleNotFoundError as error:
    if error.name != "sqlalchemy":
        raise
    raise ImportError("SQLAlchemyStore needs SQLAlchemy: pip install 'flashsale[sqlalchemy]'") from error

__all__ = ["SQLAlchemyStore"]
