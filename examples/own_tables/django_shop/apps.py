"""The shop as an app of Django's."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    name = "examples.own_tables.django_shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"
