"""Django's settings for the tests: it takes them once a process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import django
import pymysql
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest
from django.test import RequestFactory
from sqlalchemy import make_url

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


def options(database: str) -> dict[str, object]:
    """Returns Django's settings for a database that has this URL of SQLAlchemy."""
    url = make_url(database)
    kind = {"postgresql": "postgresql", "sqlite": "sqlite3"}.get(url.get_backend_name(), "mysql")
    known: dict[str, object] = {"ENGINE": f"django.db.backends.{kind}", "NAME": url.database}
    if kind == "sqlite3":
        return known | {"OPTIONS": {"timeout": 30}}
    if kind == "mysql":
        pymysql.install_as_MySQLdb()  # mysqlclient wants a compiler
        known["OPTIONS"] = dict(url.query)
    host = url.host or url.query.get("host", "")
    return known | {"USER": url.username or "", "PASSWORD": url.password or "", "HOST": host, "PORT": url.port or ""}


@contextlib.contextmanager
def database(name: str, url: str, **more: object) -> Iterator[str]:
    """Adds the database of this URL to Django's; gives its alias, with our tables in it."""
    connections.settings[name] = connections.configure_settings({name: options(url) | more, "default": {}})[name]
    try:
        call_command("migrate", "flashsale", database=name, verbosity=0)
        yield name
    finally:
        connections[name].close()
        del connections[name]
        del connections.settings[name]


def request_of_admin(**posted: str) -> HttpRequest:
    """Returns a request of somebody who uses the admin."""
    from django.contrib.auth.models import User  # the settings come first

    request = RequestFactory().post("/admin/", posted)
    request.user = User(username="zoe")
    return request


urlpatterns: list[object] = []
