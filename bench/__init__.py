"""`make bench`: flashsale and the obvious alternatives, side by side, in one run."""
