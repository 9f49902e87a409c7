"""The shop in FastAPI."""
