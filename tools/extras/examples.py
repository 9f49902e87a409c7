"""Each of the example shops makes its app: all that they import is there."""

import os
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "examples.django_shop.settings",
    "FLASHSALE_SALE": "shops",
    "SHOP_DATABASE": "shop.db",
    "SHOP_SECRET": "none",
}
for shop in ("flask_shop.app", "fastapi_shop.app", "django_shop.wsgi", "own_tables.flask_shop.app"):
    import_module(f"examples.{shop}")
for tool in ("alembic", "gunicorn", "uvicorn", "itsdangerous"):
    import_module(tool)
