"""The settings of a shop, read from a mapping of prefixed names: Flask's config, Django's settings, os.environ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Self

import flashsale
import flashsale.aio.clients
import flashsale.clients
from flashsale import Durability, InvalidRequest, Keys, OrderStore, PlainKeys, Tickets
from flashsale._rules.deadline import TIMEOUT
from flashsale._rules.partitions import MAX_PARTITIONS
from flashsale._rules.rows import EVENT_STATES, check_events
from flashsale._rules.urls import several
from flashsale.aio import AsyncOrderStore
from flashsale.model.checks import check_int, check_sale, check_seconds
from flashsale.ops.named import imported, made

PREFIX = "FLASHSALE_"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one sale in one process. In a mapping, a name is in capitals and follows the prefix.

    Args:
        sale: its name.
        redis_url: of the Redis that holds the stock; of one server, of Sentinels or of a Cluster, as
            `flashsale.clients.from_url` reads it. With partitions also several, with blanks or commas between: of
            independent primaries, named in the same order by every process.
        partitions: over how many the sale is spread; fixed once it was loaded.
        gate_url: of the gate's Redis, when it is another one.
        gate_replica_url: of a replica of the gate; of Sentinels, any replica that they name.
        database_url: an SQLAlchemy URL, for a shop without a store of its own.
        events: the states that leave an event for the `Outbox`, separated by commas.
        ticket_secrets: `id:secret`, or several, separated by commas; the first signs.
        ticket_lifetime: seconds.
        ticket_required: nobody buys without a ticket.
        cache_for: seconds for which a refusal is answered from the process.
        max_waiting: callers that may wait in this process.
        timeout: seconds within which each call ends.
        durability: where an order must be before it is ACCEPTED.
        replicas: with durability `replicated`: how many replicas must have it.
        plain_keys: the article's bare key names.
        store: what makes the host's own store.
        hooks: the host's steps in the store's transactions.
        observer: metrics and tracing.

    The last three are objects, or dotted paths that are imported when the sale is opened; of hooks and an observer also
    classes, called without arguments.
    """

    sale: str
    redis_url: str = field(default="redis://localhost:6379", repr=False)  # a URL may hold a password
    partitions: int = 1
    gate_url: str = field(default="", repr=False)
    gate_replica_url: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    events: str = EVENT_STATES
    ticket_secrets: str = field(default="", repr=False)
    ticket_lifetime: float = 120.0
    ticket_required: bool = False
    cache_for: float = 0.05
    max_waiting: int = 10_000
    timeout: float = TIMEOUT
    durability: str = Durability.ACCEPTED
    replicas: int = 1
    plain_keys: bool = False
    store: Any = None
    hooks: Any = None
    observer: Any = None

    def __post_init__(self) -> None:
        check_sale(self.sale)
        check_events(self.events)
        check_seconds("cache_for", self.cache_for)
        check_seconds("ticket_lifetime", self.ticket_lifetime, low=1.0)
        check_int("max_waiting", self.max_waiting, 1)
        check_seconds("timeout", self.timeout, low=0.1)
        check_int("replicas", self.replicas, 1)
        if self.durability not in set(Durability):
            raise InvalidRequest("durability", f"must be one of {', '.join(Durability)}")
        check_int("partitions", self.partitions, 1, MAX_PARTITIONS)
        servers = len(several(self.redis_url))
        if self.partitions == 1 and servers > 1:
            raise InvalidRequest(
                "redis_url", f"several are for a sale over several partitions: {PREFIX}PARTITIONS says how many"
            )
        if self.partitions % servers:
            raise InvalidRequest("partitions", f"must be a multiple of the {servers} servers")
        for name in ("gate_url", "gate_replica_url", "plain_keys"):
            if self.partitions > 1 and getattr(self, name):
                raise InvalidRequest(name, "a sale over several partitions has its gates and keys to itself")
        for name in ("redis_url", "gate_url", "gate_replica_url"):
            if getattr(self, name) or name == "redis_url":
                _check_redis_url(name, getattr(self, name))
        try:
            self.tickets()
        except InvalidRequest as error:
            raise InvalidRequest("ticket_secrets", error.reason) from error

    @classmethod
    def read(cls, config: Mapping[str, Any], prefix: str = PREFIX) -> Self:
        """Returns the settings; numbers may come as text, as they do from the environment.

        Raises:
            InvalidRequest: one is missing or not valid; the field is the full name of the setting.
        """
        given: dict[str, Any] = {}
        for each in fields(cls):
            value = config.get(prefix + each.name.upper())
            if value is not None:
                try:
                    given[each.name] = _KINDS[str(each.type)](value)
                except (ValueError, TypeError, OverflowError) as error:
                    raise InvalidRequest(prefix + each.name.upper(), f"must be {each.type}") from error
        if "sale" not in given:
            raise InvalidRequest(prefix + "SALE", "is missing: the name of the sale")
        try:
            return cls(**given)
        except InvalidRequest as error:
            raise InvalidRequest(prefix + error.field.upper(), error.reason) from error

    def using(self, **given: Any) -> Self:
        """Returns these settings with those that are given, unless they are None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    @property
    def keys(self) -> Keys:
        """The key layout."""
        return PlainKeys() if self.plain_keys else Keys()

    def tickets(self) -> Tickets | None:
        """Returns the signer of the tickets; None without secrets."""
        if not self.ticket_secrets:
            if self.ticket_required:
                raise InvalidRequest("secrets", "is missing: tickets are required")
            return None
        pairs = [pair.strip().partition(":") for pair in self.ticket_secrets.split(",")]
        if len({key_id for key_id, _, _ in pairs}) < len(pairs):
            raise InvalidRequest("secrets", "each id must have one secret")
        secrets = {key_id: secret.encode(errors="surrogateescape") for key_id, _, secret in pairs}
        return Tickets(secrets, lifetime=self.ticket_lifetime, required=self.ticket_required)

    def load_hooks(self) -> Any:
        """Returns the hooks; None without any. A store checks that they suit it.

        Raises:
            InvalidRequest: their path leads nowhere.
        """
        return made("hooks", self.hooks) if self.hooks else None

    def make_store(self, default: Callable[[Self], Any]) -> Any:
        """Returns what `store`, or `default`, makes of these settings.

        Raises:
            InvalidRequest: the path of the store, or of its hooks, leads nowhere; or the hooks do not suit.
        """
        return (imported("store", self.store) if self.store else default)(self)

    def open(self, store: OrderStore | None) -> flashsale.FlashSale:
        """Returns a sale for threads; its own clients of Redis live as long as the process."""
        client = flashsale.clients.from_url
        return flashsale.FlashSale(
            flashsale.clients.from_urls(self.redis_url),
            gate_client=client(self.gate_url) if self.gate_url else None,
            gate_replica=client(self.gate_replica_url, replica=True) if self.gate_replica_url else None,
            store=store,
            **self._common(),
        )

    def open_async(self, store: AsyncOrderStore | None) -> flashsale.aio.FlashSale:
        """Returns a sale for asyncio."""
        client = flashsale.aio.clients.from_url
        return flashsale.aio.FlashSale(
            flashsale.aio.clients.from_urls(self.redis_url),
            gate_client=client(self.gate_url) if self.gate_url else None,
            gate_replica=client(self.gate_replica_url, replica=True) if self.gate_replica_url else None,
            store=store,
            **self._common(),
        )

    def _common(self) -> dict[str, Any]:
        return {
            "sale": self.sale,
            "keys": self.keys,
            "partitions": self.partitions,
            "cache_for": self.cache_for,
            "max_waiting": self.max_waiting,
            "timeout": self.timeout,
            "durability": Durability(self.durability),
            "replicas": self.replicas,
            "tickets": self.tickets(),
            "observer": made("observer", self.observer) if self.observer else None,
        }


def _check_redis_url(name: str, url: str) -> None:
    try:
        flashsale.clients.from_urls(url)
    except InvalidRequest as error:
        raise InvalidRequest(name, error.reason) from error


def _truth(value: Any) -> bool:
    return str(value).lower() not in {"", "0", "false", "no", "off"}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else str(value)


def _whole(value: Any) -> int:
    return int(str(value))  # `int` alone would cut 2.7 down to 2


_KINDS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "str": _text,
    "float": float,
    "int": _whole,
    "bool": _truth,
    "Any": lambda given: given,
}
