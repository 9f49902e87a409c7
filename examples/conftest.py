"""Django takes its settings once a process: its shops are tested in one each, by tests/browser/test_examples.py."""

import os

SHOPS = ("django_shop", "own_tables/django_shop")
SETTINGS = os.environ.get("DJANGO_SETTINGS_MODULE")
collect_ignore = [shop for shop in SHOPS if f"examples.{shop.replace('/', '.')}.settings" != SETTINGS]
