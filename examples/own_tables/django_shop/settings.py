"""Settings of the shop: a project of Django's, and at the end the names that begin with FLASHSALE."""

import os
from urllib.parse import parse_qs, unquote, urlsplit

SECRET_KEY = os.environ["SHOP_SECRET"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.own_tables.django_shop.urls"
WSGI_APPLICATION = "examples.own_tables.django_shop.wsgi.application"
USE_TZ = True
STATIC_URL = "/static/"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "examples.own_tables.django_shop.apps.ShopConfig",
    "flashsale.contrib.django",
]
MIDDLEWARE = [
    "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "flashsale.contrib.django.middleware.FlashSaleMiddleware",
]
TEMPLATES = [
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
]


def database(url: str) -> dict[str, object]:
    """Returns the settings of `postgresql://user:password@host:port/name`, or of a file for SQLite."""
    if not url.startswith("postgresql"):
        options = {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url, "OPTIONS": options}
    parts = urlsplit(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username or "",
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or parse_qs(parts.query).get("host", [""])[0],
        "PORT": parts.port or "",
        "CONN_MAX_AGE": 60,
    }


DATABASES = {"default": database(os.environ["SHOP_DATABASE"]) | {"ATOMIC_REQUESTS": True}}

FLASHSALE_SALE = os.environ["FLASHSALE_SALE"]
FLASHSALE_REDIS_URL = os.environ["FLASHSALE_REDIS_URL"]
FLASHSALE_HOOKS = "examples.own_tables.django_shop.flash.Hooks"
