"""A shop of one view sells a phone over the real Redis."""

import os

from flask import Flask, Response

from flashsale.contrib.flask import FlaskSale

sales = FlaskSale()
app = Flask("shop")
app.config.update(FLASHSALE_SALE="flask", FLASHSALE_REDIS_URL=os.environ["FLASHSALE_REDIS_URL"])
sales.init_app(app)


@app.post("/buy")
def buy() -> Response:
    return sales.answer(sales.sale.buy("phone", "ann"), location="/order")


with app.app_context():
    sales.sale.preload("phone", 1)
    sales.sale.start("phone")
statuses = [app.test_client().post("/buy").status_code for _ in range(2)]
assert statuses == [202, 409], statuses
