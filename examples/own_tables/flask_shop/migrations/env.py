"""Alembic's: the shop's tables and the sale's, in one database."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import NullPool, create_engine

from examples.own_tables.flask_shop.models import Base
from flashsale.stores import metadata

with create_engine(os.environ["FLASHSALE_DATABASE_URL"], poolclass=NullPool).begin() as connection:
    context.configure(connection=connection, target_metadata=[Base.metadata, metadata])
    context.run_migrations()
