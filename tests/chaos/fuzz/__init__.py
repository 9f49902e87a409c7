"""Bytes from outside, thrown at whatever reads them: `python -m tests.chaos.fuzz --seconds 60`.

A target is a function of bytes that returns when the library kept its promise, a value or a typed error, and raises
anything else. `tests/chaos/test_fuzz.py` calls the same targets with Hypothesis.
"""
