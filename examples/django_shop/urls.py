"""Where what is."""

from django.urls import path
from django.views.decorators.cache import cache_control
from django.views.static import serve

from examples.django_shop import settings, views
from examples.shop import GOODS_ID

urlpatterns = [
    path("", views.product),
    path(f"sale/{GOODS_ID}", views.fragment),
    path(f"buy/{GOODS_ID}", views.buy),
    path("orders/<str:name>", views.order, name="order"),
    path("orders/<str:name>/pay", views.pay),
    path("orders/<str:name>/cancel", views.cancel),
    path(
        "static/<path:path>",
        cache_control(public=True, max_age=60)(serve),
        {"document_root": settings.HERE / "static"},
    ),  # a real shop leaves it to its web server
]
