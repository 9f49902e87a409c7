"""Makes `python -m flashsale` the command `flashsale`."""

import sys

from flashsale.cli import main

if __name__ == "__main__":
    sys.exit(main())
