"""The shop in Django, with its own orders, prices, vouchers and back office."""
