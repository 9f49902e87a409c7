"""One small shop, three times: in Flask, FastAPI and Django. `python -m examples --help`."""
