"""Which part of a URL's host somebody registered: the unit of politeness and of caps."""

from __future__ import annotations

import ipaddress
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tldextract import TLDExtract


def registrable_domain(url: str) -> str:
    """The registrable domain of a URL, an IP address as itself, else the host; "" where there is no host.

    >>> registrable_domain("https://live.staticflickr.com/1/2.jpg"), registrable_domain("http://a.b.example.co.uk:80/")
    ('staticflickr.com', 'example.co.uk')
    >>> registrable_domain("http://127.0.0.1:8000/x"), registrable_domain("http://[::1]/"), registrable_domain("file:///a.png")
    ('127.0.0.1', '::1', '')
    """
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return domain_of_host(host)


@lru_cache(maxsize=16384)
def domain_of_host(host: str) -> str:
    """The registrable domain of a host name; see :func:`registrable_domain`."""
    host = host.rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return _extractor()(host).top_domain_under_public_suffix or host


@cache
def _extractor() -> TLDExtract:
    """The list in the wheel: no download, no cache folder. Private suffixes count: two people on github.io are two domains."""
    from tldextract import TLDExtract

    return TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
