"""What may go wrong, one test a row: each shows that a promise holds, and that it breaks without its mechanism.

O: never oversold. E: an accepted order reaches the database exactly once. L: no unit is stranded. T: the caller gets a
value or a typed error. `python -m tests.chaos.faults` runs the rows and writes docs/guarantees.md.
"""
