"""The screen of `top`, on a terminal that is none: what it needs is there."""

from rich.live import Live

from flashsale.cli import main
from flashsale.ops.top import curve

assert Live
assert curve([0, 8]) == "▁█"
assert main(["top", "--sale", "spring", "--redis", "redis://127.0.0.1:1"]) == 2
