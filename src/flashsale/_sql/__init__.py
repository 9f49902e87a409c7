"""What both faces of `SQLAlchemyStore` share: engines, tables, rows of events. No connection here."""
