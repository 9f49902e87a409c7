"""What both APIs of `SQLAlchemyStore` share: engines, tables, statements. No connection here."""
