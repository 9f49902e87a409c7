"""Django takes its settings once a process: its shop is tested in one of its own, by tests/browser/test_examples.py."""

import os

collect_ignore = [] if os.environ.get("DJANGO_SETTINGS_MODULE") == "examples.django_shop.settings" else ["django_shop"]
