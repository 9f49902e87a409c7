"""The demo: a whole flash sale, played by real processes and settled from three independent sides.

Needs the extra `flashsale[demo]`. Nothing else in flashsale imports it.
"""

from flashsale.demo.options import DemoError, OptionError, Options
from flashsale.demo.stage import run

__all__ = ["DemoError", "OptionError", "Options", "run"]
