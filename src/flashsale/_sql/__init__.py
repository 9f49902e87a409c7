"""What both faces of `SQLAlchemyStore` share: engines, tables, statements. No connection here."""
