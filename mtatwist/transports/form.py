"""In what form a message goes to a server: as it is, marked as what it is, converted, or not at all.

RFC 6152 (8BITMIME), RFC 3030 (CHUNKING, BINARYMIME) and RFC 6531 (SMTPUTF8) say what a server may be sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mtatwist.domain import wire_domain
from mtatwist.envelope import Message
from mtatwist.smtp.downgrade import Level, Plan, Scan
from mtatwist.smtp.header import MAX_HEADER, header_end
from mtatwist.smtp.reply import Reply
from mtatwist.transports.body import Body

NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "The next hop does not take addresses or header fields beyond ASCII (SMTPUTF8)")


@dataclass(frozen=True, slots=True)
class Form:
    """``body`` is the value of BODY ("" for none); ``smtputf8``: say so with MAIL; ``chunking``: send by BDAT.

    ``conversion`` is the plan by which the message is turned to what the server takes, or None: it goes as it is.
    """

    body: str = ""
    smtputf8: bool = False
    chunking: bool = False
    conversion: Plan | None = None


class CannotSend(Exception):
    """There is no form of this message that the server takes; ``reply`` is everyone's."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Paths(NamedTuple):
    """The reverse path and forward paths as this server may be sent them; None where there is no such form."""

    reverse: str | None
    forward: list[str | None]


def paths_for(message: Message, addresses: list[str], offered: dict[str, str]) -> Paths:
    """Where SMTPUTF8 is not offered, a domain has its A-labels (RFC 5890); for a local part there is nothing."""
    reverse = message.envelope.reverse_path
    if "SMTPUTF8" in offered:
        return Paths(reverse, list(addresses))
    return Paths(_in_ascii(reverse), [_in_ascii(address) for address in addresses])


def _in_ascii(address: str) -> str | None:
    if address.isascii():
        return address
    local, at, domain = address.rpartition("@")
    if not local.isascii():
        return None
    try:
        return f"{local}{at}{wire_domain(domain)}"
    except ValueError:
        return None


async def choose_form(message: Message, paths: Paths, body: Body, offered: dict[str, str]) -> Form:
    """The best that the server takes; reads the message only where that depends on it.

    Everything goes by BDAT where that is offered: the same round trips as DATA with PIPELINING, fewer without, no
    octet changed, and no end of data that anyone could misread. What is converted is text, and goes by DATA, as
    its size is not known. Raises CannotSend, and Unreadable.
    """
    envelope = message.envelope
    chunking = "CHUNKING" in offered
    smtputf8 = envelope.smtputf8 or not all((path or "").isascii() for path in (paths.reverse, *paths.forward))
    if "SMTPUTF8" not in offered:
        if paths.reverse is None or (smtputf8 and not await _header_is_ascii(body)):
            raise CannotSend(NEEDS_SMTPUTF8)
        smtputf8 = False
    if envelope.body_type == "BINARYMIME":
        if chunking and "BINARYMIME" in offered:
            return Form("BINARYMIME", smtputf8, chunking=True)
    elif "8BITMIME" in offered:
        # Not to say 8BITMIME of 8-bit data is a lie; to say it of other data is none (RFC 6152 §3).
        seven = body.is_ascii if body.is_ascii is not None else envelope.body_type == "7BIT"
        return Form(envelope.body_type if seven else "8BITMIME", smtputf8, chunking)
    elif smtputf8:
        # A server that offers SMTPUTF8 takes 8-bit data, even if it forgot to say so (RFC 6531 §3.1, item 8).
        return Form("", smtputf8, chunking)
    elif body.is_ascii:
        return Form("", smtputf8, chunking)
    level = Level.EIGHT_BIT if "8BITMIME" in offered else Level.SEVEN_BIT
    scan, ascii_only = Scan(level), envelope.body_type != "BINARYMIME"
    body.rewind()
    while part := await body.part():
        scan.feed(part)
        ascii_only = ascii_only and part.isascii()
    body.rewind()
    plan = scan.finish()
    marked = "8BITMIME" if level is Level.EIGHT_BIT else ""
    if ascii_only or not plan.needed:
        # Lines that are too long are not our business here.
        return Form(marked, smtputf8, chunking)
    if plan.obstacle is not None:
        raise CannotSend(Reply(554, plan.obstacle.value, f"Conversion is needed and not possible: {plan.why}"))
    return Form(marked, smtputf8, conversion=plan)


async def _header_is_ascii(body: Body) -> bool:
    """Does the header section do without UTF-8? One that has no end in sight is taken for one that doesn't."""
    body.rewind()
    head = b""
    while len(head) < MAX_HEADER and header_end(head) < 0 and (part := await body.part()):
        head += part
    body.rewind()
    end = header_end(head)
    return head[: end if end >= 0 else len(head)].isascii()
