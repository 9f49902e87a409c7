"""The text of a ticket: signs it, reads it, refuses a forged or expired one. Pure: `buy` checks one without Redis.

A ticket is signed with HMAC-SHA256, and nobody can make one before the start. Where tickets are `required`, nobody buys
without one. Using it twice is placing the same order twice, because it names the order id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from flashsale.errors import InvalidRequest, InvalidTicket
from flashsale.model.checks import check_goods_id, check_id, check_quantity, check_sale, check_seconds

VERSION: Final = "1"
MIN_SECRET: Final = 16  # bytes
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")
_TICKET = re.compile(r"([0-9]{1,3})\.([A-Za-z0-9_-]{1,32})\.([A-Za-z0-9_-]{1,1024})\.([A-Za-z0-9_-]{43})")


class Ticket(NamedTuple):
    """What a ticket says.

    Args:
        sale: name of the sale.
        epoch: of the sale; a rebuild begins a new one.
        goods_id: the item that may be bought.
        buyer_id: who may buy it.
        order_id: the id that the order will have.
        quantity: the most units.
        expires_at: epoch seconds, by the clock of the process that issued it.
    """

    sale: str
    epoch: int
    goods_id: str
    buyer_id: str
    order_id: str
    quantity: int
    expires_at: int


class Tickets:
    """Signs and reads tickets.

    To change the secret: add the new one behind the others everywhere, then put it first, and drop the old one when its
    last tickets have expired.

    Args:
        secrets: key id -> secret, 16 bytes or more, the same in every process. The first signs; all are accepted.
        lifetime: seconds for which a ticket is good.
        required: True: `buy` without a ticket is refused, and so is `buy_basket`, which takes none.
        clock: epoch seconds. The stock never depends on it: a wrong one only changes how long a buyer may take.

    Raises:
        InvalidRequest: no secret, a short one, or a key id that is not 1-32 of `A-Z a-z 0-9 _ -`.
    """

    def __init__(
        self,
        secrets: Mapping[str, bytes],
        *,
        lifetime: float = 120.0,
        required: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not secrets:
            raise InvalidRequest("secrets", "must be at least one")
        for key_id, secret in secrets.items():
            if _KEY_ID.fullmatch(key_id) is None:
                raise InvalidRequest("secrets", "each key id must be 1-32 of A-Z a-z 0-9 _ -")
            if type(secret) is not bytes or len(secret) < MIN_SECRET:
                raise InvalidRequest("secrets", f"each secret must be {MIN_SECRET} bytes or more")
        self._secrets = dict(secrets)
        self._signs_with = next(iter(self._secrets))
        self.lifetime = check_seconds("lifetime", lifetime, low=1.0)
        self.required = required
        self._clock = clock

    def __repr__(self) -> str:
        return f"Tickets({', '.join(self._secrets)})"

    def issue(
        self,
        sale: str,
        epoch: int,
        goods_id: str,
        buyer_id: str,
        order_id: str,
        quantity: int,
        *,
        lifetime: float | None = None,
    ) -> str:
        """Returns a ticket: printable ASCII without spaces, fit for a URL, a header, a form or a cookie.

        Args:
            sale, epoch, goods_id, buyer_id, order_id, quantity: as in `Ticket`.
            lifetime: seconds that are left of a ticket that was given out before; None: a whole lifetime.
        """
        check_sale(sale)
        check_goods_id(goods_id)
        check_id("buyer_id", buyer_id)
        check_id("order_id", order_id)
        check_quantity(quantity)
        left = self.lifetime if lifetime is None else lifetime
        expires_at = math.ceil(self._clock() + left)  # never less than was promised
        words = (sale, str(epoch), goods_id, str(quantity), str(expires_at), order_id, buyer_id)
        text = f"{VERSION}.{self._signs_with}.{_encode(' '.join(words).encode('ascii'))}"
        return f"{text}.{self._sign(text, self._signs_with)}"

    def read(self, ticket: object) -> Ticket:
        """Returns what a ticket says, after checking that we signed it and that it has not expired.

        Raises:
            InvalidTicket: it was not signed by us, or it has expired.
        """
        match = _TICKET.fullmatch(ticket) if isinstance(ticket, str) else None
        if match is None:
            raise InvalidTicket("is not a ticket")
        version, key_id, payload, signature = match.groups()
        if version != VERSION or key_id not in self._secrets:
            raise InvalidTicket("was signed by a key that is not in use")
        if not hmac.compare_digest(signature, self._sign(f"{version}.{key_id}.{payload}", key_id)):
            raise InvalidTicket("was not signed by us")
        sale, epoch, goods_id, quantity, expires_at, order_id, buyer_id = _decode(payload).decode("ascii").split(" ")
        if self._clock() >= int(expires_at):
            raise InvalidTicket("has expired")
        return Ticket(sale, int(epoch), goods_id, buyer_id, order_id, int(quantity), int(expires_at))

    def _sign(self, text: str, key_id: str) -> str:
        return _encode(hmac.digest(self._secrets[key_id], b"flashsale ticket " + text.encode("ascii"), hashlib.sha256))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise InvalidTicket("is not a ticket") from error
