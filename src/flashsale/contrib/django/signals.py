"""Signals for a project that needs no hooks: sent once the database has committed, at most once, and never in a hurry.

`order_saved`: the worker has saved an order. Arguments: `sale` (the name), `order`.

`order_settled`: an order has moved. Arguments: `sale`, `order`, `before` and `after` (each an `OrderState`).

`sender` is the class of the store. A receiver that raises is logged, and stops nothing. When the process dies between
commit and signal, nobody is told: for what must happen take hooks, or an `Outbox`.
"""

from django.dispatch import Signal

order_saved = Signal()
order_settled = Signal()
