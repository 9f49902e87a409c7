"""One way to a Redis: run a script once, and say surely what happened.

EVALSHA first; NOSCRIPT falls back once to EVAL. A connection is held for one request and spoken to directly, so that we
know on which side of the send an error came: before it nothing happened, after it nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from redis import exceptions
from redis.asyncio import RedisCluster

from flashsale.aio.clients import Client, private
from flashsale.errors import CorruptState, FlashSaleError, NotExecuted, OutcomeUnknown
from flashsale.lua import SCRIPTS, Script

Argument: TypeAlias = str | bytes | int | float

# What a server answers when it refused before the first write. Inside a script's error the prefix stands in the middle.
_REFUSED: Final = re.compile(
    r"(?:^|[ -])(ASK|BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|MOVED|NOAUTH|NOPERM|NOREPLICAS|OOM|READONLY|TRYAGAIN|"
    r"UNKILLABLE|WRONGPASS)\b"
)
_CORRUPT: Final = re.compile(r"(?:^|[ -])WRONGTYPE\b")
# Refusals after which the connection points at the wrong server, or at a server that will not serve it.
_STALE: Final = frozenset({"READONLY", "MASTERDOWN", "NOAUTH", "LOADING"})
# Raised by redis-py for an answer of the server, though their classes say that the connection failed.
_ANSWERS: Final = (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError)


class Link:
    """Our own connections to the servers of the host's client."""

    def __init__(self, client: Client) -> None:
        self._client = private(client)
        self._pool: Any = None if isinstance(self._client, RedisCluster) else self._client.connection_pool
        self.host_client = client

    @property
    def socket_timeout(self) -> float:
        """Seconds after which a read fails; blocking commands wait for less."""
        settings = self._pool.connection_kwargs if self._pool else {}
        return float(settings.get("socket_timeout") or 5.0)

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Runs the script `name` once and returns its reply.

        Raises:
            NotExecuted: surely nothing happened.
            OutcomeUnknown: sent, no whole reply.
            CorruptState: a key has the wrong type; nothing was changed.
        """
        script = SCRIPTS[name]
        try:
            return await self._send("EVALSHA", script.sha, len(keys), *keys, *args)
        except exceptions.NoScriptError:
            pass
        try:
            return await self._send("EVAL", script.text, len(keys), *keys, *args)
        except exceptions.NoScriptError as error:
            raise NotExecuted("the server does not keep scripts") from error

    async def load(self, scripts: Sequence[Script]) -> list[str]:
        """SCRIPT LOADs the scripts, on every primary of a cluster; returns their SHA1s."""
        if isinstance(self._client, RedisCluster):
            for script in scripts:
                await self._routed("SCRIPT LOAD", script.text)
        else:
            for script in scripts:
                await self._send("SCRIPT LOAD", script.text)
        return [script.sha for script in scripts]

    async def command(self, *command: Argument) -> Any:
        """Sends one plain command and returns its reply; errors as in `run`."""
        return await self._send(*command)

    async def close(self) -> None:
        """Closes our connections; the host's stay."""
        await self._client.aclose()
        if self._pool is not None:
            await self._pool.disconnect()

    async def _send(self, *command: Argument) -> Any:
        if self._pool is None:
            return await self._routed(*command)
        try:
            connection = await self._pool.get_connection()
        except (exceptions.RedisError, OSError) as error:
            raise NotExecuted(f"no connection to Redis: {type(error).__name__}") from error
        whole = False
        try:
            await connection.send_command(*command)
            reply = await connection.read_response()
            whole = True
            return reply
        except exceptions.NoScriptError:
            whole = True
            raise
        except _ANSWERS as error:
            refusal = translate(error)
            whole = not (isinstance(refusal, NotExecuted) and refusal.reason in _STALE)
            raise refusal from error
        except (exceptions.RedisError, OSError) as error:
            raise OutcomeUnknown(f"no reply from Redis: {type(error).__name__}") from error
        finally:
            if not whole:
                await connection.disconnect()
            await self._pool.release(connection)

    async def _routed(self, *command: Argument) -> Any:
        """On a Cluster the client routes; it follows MOVED and ASK, and does not retry."""
        try:
            return await self._client.execute_command(*command)
        except exceptions.NoScriptError:
            raise
        except (exceptions.ClusterDownError, exceptions.SlotNotCoveredError) as error:
            raise NotExecuted(f"the cluster does not serve this slot: {type(error).__name__}") from error
        except _ANSWERS as error:
            raise translate(error) from error
        except (exceptions.RedisError, OSError) as error:
            raise OutcomeUnknown(f"no reply from Redis: {type(error).__name__}") from error


def translate(error: Exception) -> FlashSaleError:
    """Returns our error for an answer of the server. Its text is not quoted: it may hold arguments."""
    text = str(error)
    if isinstance(error, exceptions.BusyLoadingError):
        return NotExecuted("Redis refused: LOADING", reason="LOADING")
    if isinstance(error, (exceptions.AuthenticationError, exceptions.NoPermissionError)):
        return NotExecuted("Redis refused: NOPERM", reason="NOAUTH")
    # redis-py strips some prefixes and names the class instead.
    if isinstance(error, exceptions.ReadOnlyError):
        return NotExecuted("Redis refused: READONLY", reason="READONLY")
    if isinstance(error, exceptions.OutOfMemoryError):
        return NotExecuted("Redis refused: OOM", reason="OOM")
    if refused := _REFUSED.search(text):
        return NotExecuted(f"Redis refused: {refused[1]}", reason=refused[1])
    if _CORRUPT.search(text):
        return CorruptState("a key has the wrong type")
    return OutcomeUnknown(f"Redis answered with an error: {type(error).__name__}")
