"""The fence around redis-py: what we use of its connections beyond the documented API."""

from __future__ import annotations

from typing import Any

from redis.exceptions import RedisError


def is_stale(connection: Any) -> bool:
    """True when the server has closed an idle connection of redis-py, or has sent what nobody asked for."""
    try:
        return bool(connection.can_read(timeout=0))
    except (RedisError, OSError):
        return True


def send(connection: Any, packed: bytes) -> None:
    """Sends over a connection of redis-py."""
    connection.send_packed_command([packed], check_health=False)
