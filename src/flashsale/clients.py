"""Private copies of the host's Redis clients, and clients made from a URL."""

from flashsale._sync.clients import Client, from_url, from_urls

__all__ = ["Client", "from_url", "from_urls"]
