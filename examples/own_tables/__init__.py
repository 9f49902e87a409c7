"""Shops that had tables of their own before they had a flash sale."""
