"""The shop in Flask, SQLAlchemy and Alembic."""
