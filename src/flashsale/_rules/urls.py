"""Parses the URL of a Redis: of one server, of Sentinels that name it, or of the nodes of a Cluster. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from flashsale.errors import InvalidRequest

REDIS_URL: Final = "FLASHSALE_REDIS_URL"
DATABASE_URL: Final = "FLASHSALE_DATABASE_URL"
"""Environment variables that stand in for URLs on a command line."""

Address: TypeAlias = tuple[str, int]

FORMS: Final = (
    "redis://localhost:6379/0, rediss:// over TLS, unix:///path, redis+sentinel://host:26379,host:26379/service/0, "
    "redis+cluster://host:6379,host:6379"
)
_SEVERAL: Final = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?P<user>[^@/?#]*@)?(?P<hosts>[^@/?#\s]+)"
    r"(?:/(?P<service>[^@/?#\s]+))?(?:/(?P<db>\d+))?/?(?:\?(?P<query>[^#]*))?"
)
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_ABOUT_SENTINELS: Final = "sentinel_"  # begins the names of their options


def several(text: str) -> list[str]:
    """Returns the URLs of a setting that names one Redis, or several, with blanks or commas between.

    >>> several("redis://a, redis+cluster://b,c")
    ['redis://a', 'redis+cluster://b,c']
    """
    return re.split(r"[\s,]+(?=[a-z+]+://)", text)


class Place(NamedTuple):
    """Where a Redis is.

    Args:
        url: of one server, as redis-py reads it: the settings of all, and the first address.
        addresses: of Sentinels or nodes; none for one server.
        service: the Sentinels' name for it; empty for a Cluster.
        sentinel_url: the settings of the Sentinels, as redis-py reads them.
    """

    url: str
    addresses: list[Address]
    service: str
    sentinel_url: str


def parse(url: str) -> Place:
    """Returns what a URL says.

    >>> parse("redis+sentinel://:secret@a,b:5000/shop/1?socket_timeout=2").addresses
    [('a', 26379), ('b', 5000)]

    Raises:
        InvalidRequest: it is not a URL of these forms; the error does not show it, because it may hold a password.
    """
    if re.match(r"(rediss?|unix)://", url):
        return Place(url, [], "", "")
    if (found := _SEVERAL.fullmatch(url)) is None:
        raise InvalidRequest("url", f"must be a URL: {FORMS}")
    kind, service, db = found["kind"], unquote(found["service"] or ""), found["db"] or "0"
    pairs = parse_qsl(found["query"] or "", keep_blank_values=True)
    if kind == "cluster":
        if service not in {"", "0"} or {db, *(value for name, value in pairs if name == "db")} != {"0"}:
            raise InvalidRequest("url", "a Cluster has no service, and one database, 0")
        service = ""
    elif not service:
        raise InvalidRequest("url", "must name the service behind the hosts: redis+sentinel://host:26379/service")
    watch = [(name.removeprefix(_ABOUT_SENTINELS), value) for name, value in pairs if name.startswith(_ABOUT_SENTINELS)]
    options = [(name, value) for name, value in pairs if not name.startswith(_ABOUT_SENTINELS)]
    first = f"{found['hosts'].split(',')[0]}/{db}"
    return Place(
        f"{found['scheme']}://{found['user'] or ''}{first}?{urlencode(options)}",
        [_address(each, _PORTS[kind]) for each in found["hosts"].split(",")],
        service,
        f"{found['scheme']}://{first}?{urlencode(watch)}",
    )


def _address(text: str, port: int) -> Address:
    try:
        split = urlsplit(f"//{text}")
        host, port = split.hostname, port if split.port is None else split.port
    except ValueError:
        host = None
    if not host:
        raise InvalidRequest("url", "each host must be host or host:port, with commas between")
    return host, port
