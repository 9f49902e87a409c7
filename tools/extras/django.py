"""A project of our app alone: migrations, a DjangoStore, a sale over the real Redis, the checks."""

import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="none",
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}},
    INSTALLED_APPS=["flashsale.contrib.django"],
    FLASHSALE_SALE="django",
    FLASHSALE_REDIS_URL=os.environ["FLASHSALE_REDIS_URL"],
)
django.setup()

from django.core.management import call_command  # noqa: E402

from flashsale import Goods, Syncer, Worker  # noqa: E402
from flashsale.contrib.django import get_sale  # noqa: E402
from flashsale.contrib.django.models import SaleOrder  # noqa: E402
from flashsale.contrib.django.store import DjangoStore  # noqa: E402

call_command("migrate", verbosity=0)
call_command("check", verbosity=0)
DjangoStore("django").put_goods(Goods("phone", 1))
with get_sale() as sale:
    Syncer(sale).run_once()
    sale.start("phone")
    assert [sale.buy("phone", "ann").accepted for _ in range(2)] == [True, False]
    assert Worker(sale).run_once() == 1
assert SaleOrder.objects.count() == 1
