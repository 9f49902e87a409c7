"""What a redis-py client tells of its connections: the settings that ours copy, and the slots of a Cluster. Pure.

Part of the fence around redis-py: with `_redispy` of each API it holds all that we use beyond redis-py's documented
clients and errors. `tests/servers/test_redispy.py` has a test for each piece and keeps every other module outside.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from redis.crc import key_slot

from flashsale._rules.observer import log
from flashsale._rules.urls import Address

# Settings of the host's client that our connections copy: where the server is, who we are, TLS, sockets, encoding.
COPIED: Final = frozenset(
    {
        "client_name",
        "credential_provider",
        "db",
        "driver_info",
        "encoder_class",
        "encoding",
        "encoding_errors",
        "health_check_interval",
        "host",
        "lib_name",
        "lib_version",
        "password",
        "path",
        "port",
        "redis_connect_func",
        "socket_connect_timeout",
        "socket_keepalive",
        "socket_keepalive_options",
        "socket_read_size",
        "socket_timeout",
        "socket_type",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_ciphers",
        "ssl_exclude_verify_flags",
        "ssl_include_verify_flags",
        "ssl_keyfile",
        "ssl_min_version",
        "ssl_ocsp_context",
        "ssl_ocsp_expected_cert",
        "ssl_password",
        "ssl_validate_ocsp",
        "ssl_validate_ocsp_stapled",
        "username",
    }
)
# Settings left behind in silence: bound to the host's client or pool, a reason to retry, or a form of the replies.
LEFT: Final = frozenset(
    {
        "cache",
        "cache_config",
        "command_packer",
        "connected",
        "connection_pool",
        "decode_responses",
        "event_dispatcher",
        "himport_registry",
        "legacy_responses",
        "maint_notifications_config",
        "maint_notifications_pool_handler",
        "maintenance_notification_hash",
        "maintenance_state",
        "orig_host_address",
        "orig_socket_connect_timeout",
        "orig_socket_timeout",
        "oss_cluster_maint_notifications_handler",
        "parser",
        "parser_class",
        "protocol",
        "response_callbacks",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
    }
)
_ONWARD: Final = re.compile(r"(\d+) (\S*):(\d+)$")  # the end of MOVED and ASK: slot, host, port
_reported: set[str] = set()  # names that the log has had


class Settings(NamedTuple):
    """How the host's connections are made."""

    connection_class: Any
    arguments: dict[str, Any]
    max_connections: int


class Watch(NamedTuple):
    """What a client of `master_for` or `slave_for` knows of its service."""

    settings: Settings
    service: str
    is_primary: bool
    sentinels: list[Settings]
    manager: Any


class ClusterNodes(NamedTuple):
    """What a Cluster client knows of its nodes; `remap` is the host's translation of addresses, if it has one."""

    settings: Settings
    addresses: list[Address]
    remap: Callable[[Address], Address] | None


def hurried(settings: Settings, seconds: float) -> Settings:
    """Returns the settings with timeouts of so many seconds, where they are not shorter."""
    short = max(0.001, seconds)
    names = ("socket_timeout", "socket_connect_timeout")
    hurry = {name: min(short, settings.arguments.get(name) or short) for name in names}
    return settings._replace(arguments=settings.arguments | hurry)


def settings_of_client(client: Any) -> Settings:
    """Returns what our connections copy from a client of one server."""
    return settings_of(client.connection_pool)


def settings_of(pool: Any, connection_class: Any = None) -> Settings:
    """Returns what our connections copy from a pool of redis-py, or from a node of its asyncio Cluster client.

    Args:
        pool: it is read, and left alone.
        connection_class: the one to use in place of the pool's.
    """
    kind = connection_class or pool.connection_class
    return Settings(kind, copied(pool.connection_kwargs, kind), pool.max_connections)


def try_settings(pool: Any) -> None:
    """Makes a connection and drops it unconnected: an argument that redis-py does not know is a TypeError."""
    pool.connection_class(**pool.connection_kwargs)


def copied(arguments: Mapping[str, Any], connection_class: type) -> dict[str, Any]:
    """Returns the settings that come along; a line in the log names any other that is not known to be left behind.

    A connection class of the host's own gets the settings that redis-py does not know: they can only be for it.
    """
    named = _named_by_redis_py(connection_class)
    is_theirs = not connection_class.__module__.startswith("redis.")
    come = {}
    for name, value in arguments.items():
        if name in COPIED or (is_theirs and name not in LEFT | named.keys()):
            come[name] = value
        elif name not in LEFT and value is not named.get(name) and name not in _reported:
            _reported.add(name)
            log.warning("the setting %s of the Redis client is not copied: flashsale does not know it", name)
    return come


def _named_by_redis_py(connection_class: type) -> dict[str, Any]:
    """Returns the arguments that redis-py's own constructors name, with their defaults."""
    found: dict[str, Any] = {}
    for kind in connection_class.__mro__:
        if kind.__module__.startswith("redis.") and "__init__" in vars(kind):
            parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
            found |= {each.name: each.default for each in parameters}
    return found


def slot_of(key: str) -> int:
    """Returns the slot of a key on a Cluster."""
    return key_slot(key.encode("ascii"))


def slot_ranges(reply: Iterable[Any], asked: Address) -> list[tuple[int, int, Address]]:
    """Returns first slot, last slot and primary for each range of CLUSTER SLOTS; a node without a name is the asked."""
    return [(low, high, (str(host or b"", "ascii") or asked[0], port)) for low, high, (host, port, *_), *_ in reply]


def slot_and_target(text: str, asked: Address) -> tuple[int, Address] | None:
    """Returns where MOVED or ASK sends us, for which slot; None: the text says neither."""
    if (onward := _ONWARD.search(text)) is None:
        return None
    return int(onward[1]), (onward[2] or asked[0], int(onward[3]))
