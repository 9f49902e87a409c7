"""The Django app: registers the system checks."""

from django.apps import AppConfig
from django.core.signals import setting_changed


class FlashSaleConfig(AppConfig):
    """Registers the system checks when the app is ready."""

    name = "flashsale.contrib.django"
    label = "flashsale"
    verbose_name = "Flash sale"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Imports the checks, which register themselves; a test that overrides a setting gets new sales."""
        from flashsale.contrib.django import _forget, checks  # noqa: F401, PLC0415

        setting_changed.connect(_forget, dispatch_uid="flashsale")
