"""Generated from `flashsale.aio` by tools/unasync.py; by hand only what waits differently in threads."""
