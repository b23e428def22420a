"""Domain names, from what people write to what the DNS is asked (RFC 1035 §3.1, RFC 5891)."""

from __future__ import annotations

import re

import dns.name
import idna

_LABEL = re.compile(r"[a-z0-9_/-]{1,63}")
MAX_NAME = 253
"""Characters a name has at most, dots included (RFC 1035 §2.3.4)."""


class BadName(ValueError):
    """The text can't be a name in the DNS; the message says why, for a person."""


def ascii_name(text: str) -> str:
    """The name in A-labels and lower case, without a final dot. Raises BadName."""
    if not text.isascii():
        try:
            text = idna.uts46_remap(text, std3_rules=False)
        except idna.IDNAError as error:
            raise BadName(str(error)) from None
    # Label by label: those that are ASCII may have what no U-label can, such as an underscore.
    labels = [_a_label(label) for label in text.lower().removesuffix(".").split(".")]
    name = ".".join(labels)
    if len(name) > MAX_NAME:
        raise BadName(f"longer than {MAX_NAME} characters")
    return name


def wire_name(name: str) -> dns.name.Name:
    """The name as dnspython has it, for a ``name`` from :func:`ascii_name`."""
    return dns.name.Name([*(label.encode("ascii") for label in name.split(".")), b""])


def text_name(name: dns.name.Name) -> str:
    """A name from a reply as text: lower case, without the final dot; "" is the root."""
    return name.to_text(omit_final_dot=True).lower() if len(name) > 1 else ""


def _a_label(label: str) -> str:
    if not label.isascii():
        try:
            label = idna.encode(label, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise BadName(str(error)) from None
    if not _LABEL.fullmatch(label):
        raise BadName("a label is empty, too long, or has other signs than letters, digits, hyphens and underscores")
    return label
