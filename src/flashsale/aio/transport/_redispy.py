"""The fence around redis-py: what we use of its connections beyond the documented API."""

from __future__ import annotations

import asyncio
from typing import Any


def is_stale(connection: Any) -> bool:
    """True when the server has closed an idle connection of redis-py, or has sent what nobody asked for."""
    reader = connection._reader
    if not isinstance(reader, asyncio.StreamReader):  # fakeredis has no socket that could be closed
        return reader is None
    return reader.at_eof() or bool(reader._buffer)  # type: ignore[attr-defined]


async def send(connection: Any, packed: bytes) -> None:
    """Sends over a connection of redis-py. What is not yet on its way when this returns, the wait for the reply bounds.

    redis-py's own call makes a task to bound the send as well, which costs more than the send.
    """
    writer = connection._writer
    if isinstance(writer, asyncio.StreamWriter):
        writer.write(packed)
    else:  # fakeredis, or closed
        await connection.send_packed_command([packed], check_health=False)
