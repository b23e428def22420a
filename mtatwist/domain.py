"""Domain names of mail as routes, our own lists and the DNS know them."""

from __future__ import annotations

import idna


def wire_domain(domain: str) -> str:
    """The domain in lower case and A-labels (RFC 5890 §2.3.2.1). Raises ValueError when it can have none."""
    if domain.isascii():
        return domain.lower()
    return idna.encode(domain, uts46=True).decode("ascii").lower()
