"""Settings of the shop: what a project of Django's has, and the names that begin with FLASHSALE."""

import os
from pathlib import Path

HERE = Path(__file__).parent.parent

SECRET_KEY = os.environ["SHOP_SECRET"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "examples.django_shop.urls"
USE_TZ = True
INSTALLED_APPS = ["flashsale.contrib.django"]
MIDDLEWARE = [
    "flashsale.contrib.django.middleware.NoSharedCookiesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "examples.django_shop.views.problem_pages",
    "flashsale.contrib.django.middleware.FlashSaleMiddleware",
]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
SESSION_COOKIE_SAMESITE = "Lax"  # a form on somebody else's page comes without the buyer
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["SHOP_DATABASE"],
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
FLASHSALE_SALE = os.environ["FLASHSALE_SALE"]
FLASHSALE_REDIS_URL = os.environ["FLASHSALE_REDIS_URL"]
