"""A page of a sale is rendered, and the application is made."""

import os
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor

import redis
import uvicorn

from flashsale import FlashSale
from flashsale.ops.console import Guard, app
from flashsale.ops.frame import Context
from flashsale.ops.opening import Opened
from flashsale.ops.pages import Console
from flashsale.ops.running import verbs


class Program:
    prog = "extra"

    def open(self, options, verb, *, is_async=False):
        return Opened("console", sale, None)


verb = next(verb for verb in verbs() if verb.name == "console")
with redis.Redis.from_url(os.environ["FLASHSALE_REDIS_URL"]) as client, FlashSale(client, "console") as sale:
    sale.preload("phone", 3)
    with Context(verb, Namespace(), Program(), sys.stdout, sys.stderr) as context, ThreadPoolExecutor(1) as threads:
        console = Console(context)
        code, html = console.render("status", {})
        assert code == 200
        assert "phone" in html
        uvicorn.Config(Guard(app(console, threads)), log_config=None).load()
