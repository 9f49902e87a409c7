"""The Django app: registers the system checks."""

from django.apps import AppConfig


class FlashSaleConfig(AppConfig):
    """Registers the system checks when the app is ready."""

    name = "flashsale.contrib.django"
    label = "flashsale"
    verbose_name = "Flash sale"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Imports the checks, which register themselves."""
        from flashsale.contrib.django import checks  # noqa: F401, PLC0415
