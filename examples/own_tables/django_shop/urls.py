"""Where what is."""

from django.contrib import admin
from django.urls import path

from examples.own_tables.django_shop import views

urlpatterns = [
    path("office/", admin.site.urls),
    path("regular/<sku>", views.regular),
    path("flash/<sku>", views.flash),
    path("basket", views.basket),
    path("orders/<number>", views.order, name="order"),
    path("payments", views.payment),
]
