"""The demo: a whole flash sale, run by real processes and checked from three independent sides.

Needs the extra `flashsale[demo]`. Nothing else in flashsale imports it.
"""

from flashsale.demo.options import DemoError, OptionError, Options
from flashsale.demo.runner import run

__all__ = ["DemoError", "OptionError", "Options", "run"]
