"""`python -m flashsale` is `flashsale`."""

import sys

from flashsale.cli import main

if __name__ == "__main__":
    sys.exit(main())
