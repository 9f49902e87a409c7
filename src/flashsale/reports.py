"""What the syncer tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One pass of the syncer, by goods id.

    Args:
        leading: False when another syncer held the lease, and this pass did nothing.
        loaded: goods preloaded now.
        missing: goods that were loaded once and that Redis no longer holds: closed until `rebuild`.
        resized: goods whose `Total` moved, with the total that now stands.
        returned: gate slots given back, in units.
        expired: orders whose payment deadline had passed.
    """

    leading: bool
    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    resized: tuple[tuple[str, int], ...] = ()
    returned: int = 0
    expired: int = 0
