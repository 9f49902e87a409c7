"""Generated from `flashsale.aio.stores`; `flashsale.stores` is its public name."""
