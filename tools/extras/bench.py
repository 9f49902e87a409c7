"""Every library of the comparison is imported, and the benchmark says what it can do."""

import runpy
import sys
from importlib import import_module
from pathlib import Path

for peer in (
    "celery",
    "coredis",
    "dramatiq",
    "glide",
    "gunicorn",
    "huey",
    "matplotlib",
    "rq",
    "saq",
    "uvicorn",
    "uvloop",
):
    import_module(peer)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.argv = ["bench", "--help"]
try:
    runpy.run_module("bench", run_name="__main__")
except SystemExit as end:
    assert not end.code
