"""What an error of a database driver says: is a row to blame, and does a failed COMMIT surely mean a rollback. Pure.

Drivers differ in where they keep it: the SQLSTATE of PostgreSQL, the number of MySQL and MariaDB, the class of SQLite.
"""

from __future__ import annotations

from typing import Final

_ABORTED: Final = "25P02"  # only after an error that a hook of the host's has swallowed
_ROW_CLASSES: Final = frozenset({"22", "23", "44", "45", "P0"})
"""Data, constraint, check option, a trigger's SIGNAL, a trigger's RAISE EXCEPTION."""
_ROLLED_BACK: Final = _ROW_CLASSES | {"25", "40"}  # and: invalid transaction state (read-only), rollback
_UNCERTAIN: Final = "40003"  # of class 40: nobody knows whether the statement completed
_ROW_NAMES: Final = frozenset({"IntegrityError", "DataError"})

_MYSQL_SIGNAL: Final = 1644  # for drivers that keep no SQLSTATE
_MYSQL_OWN: Final = 5000  # a host's own MYSQL_ERRNO is beyond those of the server
_MYSQL_CHECKS: Final = frozenset({3819, 4025})  # a CHECK, of MySQL and of MariaDB
_MYSQL_ROLLED_BACK: Final = frozenset({1205, 1213, 1290, 1792, 1836})  # lock wait, deadlock, three kinds of read-only
_SQLITE_IOERR: Final = 10


def blames_row(error: BaseException | None) -> bool:
    """True when the driver's error blames a row; not the connection, the schema, the server or another transaction."""
    if state := _sqlstate(error):
        return state[:2] in _ROW_CLASSES or state == _ABORTED
    number = _number(error)
    if number == _MYSQL_SIGNAL or number >= _MYSQL_OWN or number in _MYSQL_CHECKS:
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & _ROW_NAMES) or ("ProgrammingError" in names and _is_drivers_own(error))


def is_rolled_back(error: BaseException | None) -> bool:
    """True when an error that came instead of the answer to COMMIT says for certain that nothing was written."""
    if state := _sqlstate(error):
        return state[:2] in _ROLLED_BACK and state != _UNCERTAIN
    if (code := getattr(error, "sqlite_errorcode", None)) is not None:
        return bool(code & 0xFF != _SQLITE_IOERR)
    return blames_row(error) or _number(error) in _MYSQL_ROLLED_BACK


def _sqlstate(error: BaseException | None) -> str:
    """Returns the SQLSTATE; empty where there is none, or one that MySQL gives to all that has no class."""
    state = str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")
    return "" if state.startswith("HY") else state


def _number(error: BaseException | None) -> int:
    first = error.args[0] if error is not None and error.args else None
    return first if isinstance(first, int) else 0


def _is_drivers_own(error: BaseException | None) -> bool:
    """True when no server has said it, as of a parameter that the driver cannot send: all it has is a text."""
    return error is not None and len(error.args) == 1 and isinstance(error.args[0], str)
