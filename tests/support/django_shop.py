"""Django's settings for the tests: it takes them once a process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connections

FOLDER = tempfile.TemporaryDirectory(prefix="flashsale-django-")


def set_up() -> None:
    """Sets Django up, once."""
    if settings.configured:
        return
    path = Path(FOLDER.name) / "shop.db"
    settings.configure(
        SECRET_KEY="test",
        USE_TZ=True,
        ROOT_URLCONF="tests.support.django_shop",
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": path, "OPTIONS": {"timeout": 30}}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "django.contrib.messages",
            "django.contrib.admin",
            "flashsale.contrib.django",
        ],
        MIDDLEWARE=[
            "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            "flashsale.contrib.django.middleware.FlashSaleMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        FLASHSALE_SALE="nov11",
    )
    django.setup()
    call_command("migrate", verbosity=0)


@contextlib.contextmanager
def database(name: str, **options: object) -> Iterator[str]:
    """Adds a database to Django's; gives its alias, with our tables in it."""
    connections.settings[name] = connections.configure_settings({name: options, "default": {}})[name]
    try:
        call_command("migrate", "flashsale", database=name, verbosity=0)
        yield name
    finally:
        connections[name].close()
        del connections[name]
        del connections.settings[name]


urlpatterns: list[object] = []
