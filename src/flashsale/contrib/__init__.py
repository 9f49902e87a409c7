"""Adapters for web frameworks; each needs its framework, and the core imports none of them."""
