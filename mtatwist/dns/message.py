"""Queries and replies on the wire (RFC 1035 §4, RFC 6891). dnspython reads and writes them; no reply is trusted."""

from __future__ import annotations

from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
from dns.rdata import Rdata

PAYLOAD = 1232
"""Octets of a UDP reply that we ask for at most: they pass every path unfragmented (DNS flag day 2020)."""

MAX_RECORDS = 250
"""Records that a reply may have. Each costs the reactor's thread 0.1 ms or more, and any zone can have thousands."""

_QR, _TC = 0x80, 0x02

_WITHOUT_EDNS = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS)

_NO_QUESTION = (dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.SERVFAIL, dns.rcode.REFUSED)
"""With these a server may leave the question out of its reply."""


class NotOurs(Exception):
    """This is no reply to that query: an old one, or a forged one."""


class Truncated(Exception):
    """It did not fit into a datagram: TCP has the whole of it."""


class BadReply(Exception):
    """It is a reply to that query, and can't be read."""


class Query(NamedTuple):
    """One query, ready to be sent."""

    id: int
    name: dns.name.Name
    type: dns.rdatatype.RdataType
    wire: bytes
    edns: bool


class Reply(NamedTuple):
    """What a server says. ``trouble`` is "" for an answer; NXDOMAIN (``exists`` is false) and NODATA are answers.

    ``canonical`` is the name at the end of the CNAMEs; when ``unfinished``, the server did not follow them further.
    ``ttl`` is in seconds; ``secure`` is the AD bit as it came (RFC 4035 §3.2.3); ``size`` is in octets.
    """

    trouble: str
    exists: bool
    records: tuple[Rdata, ...]
    canonical: dns.name.Name
    cnames: int
    unfinished: bool
    ttl: int
    secure: bool
    size: int
    retry_plain: bool = False


def make_query(
    name: dns.name.Name, type: dns.rdatatype.RdataType, id: int, *, edns: bool = True, ask_ad: bool = False
) -> Query:
    """A recursive query. ``ask_ad``: say that we understand the AD bit (RFC 6840 §5.7)."""
    message = dns.message.QueryMessage(id=id)
    message.flags = dns.flags.RD | (dns.flags.AD if ask_ad else 0)
    message.find_rrset(message.question, name, dns.rdataclass.IN, type, create=True, force_unique=True)
    if edns:
        message.use_edns(0, 0, PAYLOAD)
    return Query(id, name, type, message.to_wire(), edns)


def read_reply(data: bytes, query: Query) -> Reply:
    """Read the reply to ``query``. Raises NotOurs, Truncated or BadReply, and nothing else."""
    if len(data) < 12 or int.from_bytes(data[:2], "big") != query.id or not data[2] & _QR:
        raise NotOurs
    crowd = sum(int.from_bytes(data[place : place + 2], "big") for place in (6, 8, 10)) > MAX_RECORDS
    try:
        # Of a truncated reply, what is left of the records says nothing.
        message = dns.message.from_wire(data, question_only=crowd or bool(data[2] & _TC))
    except Exception as error:
        # Whatever a peer's bytes do to the parser, they are just a bad reply.
        raise BadReply(f"{type(error).__name__}: {error}") from None
    if not _answers(message, query):
        raise NotOurs
    if data[2] & _TC:
        raise Truncated
    if crowd:
        return no_answer("too many records", query, len(data))
    try:
        return _judge(message, query, len(data))
    except Exception as error:
        raise BadReply(f"{type(error).__name__}: {error}") from None


def _answers(message: dns.message.Message, query: Query) -> bool:
    """Does it repeat our question (RFC 5452 §9.1)?"""
    if message.opcode() != dns.opcode.QUERY:
        return False
    if not message.question:
        return message.rcode() in _NO_QUESTION
    if len(message.question) != 1:
        return False
    question = message.question[0]
    return (question.name, question.rdtype, question.rdclass) == (query.name, query.type, dns.rdataclass.IN)


def _judge(message: dns.message.Message, query: Query, size: int) -> Reply:
    rcode = message.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        retry_plain = query.edns and rcode in _WITHOUT_EDNS
        return no_answer(dns.rcode.to_text(rcode), query, size, retry_plain)
    if not isinstance(message, dns.message.QueryMessage):
        raise BadReply("no reply to a query")
    try:
        chain = message.resolve_chaining()
    except dns.message.ChainTooLong:
        return no_answer("CNAME loop", query, size)
    records = tuple(chain.answer) if chain.answer is not None else ()
    soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in message.authority)
    denied = rcode == dns.rcode.NXDOMAIN or soa
    if not records and not denied and _is_referral(message):
        return no_answer("lame", query, size)
    unfinished = bool(chain.cnames) and not records and not denied
    # A denial without a SOA record says nothing of how long it holds (RFC 2308 §5).
    ttl = chain.minimum_ttl if records or soa else 0
    if unfinished:
        ttl = min(cname.ttl for cname in chain.cnames)
    return Reply(
        trouble="",
        exists=rcode == dns.rcode.NOERROR,
        records=records,
        canonical=chain.canonical_name,
        cnames=len(chain.cnames),
        unfinished=unfinished,
        ttl=ttl,
        secure=bool(message.flags & dns.flags.AD),
        size=size,
    )


def _is_referral(message: dns.message.Message) -> bool:
    """Does the server only name others, that would know (a lame one, or one that does not recurse)?"""
    return not message.answer and any(rrset.rdtype == dns.rdatatype.NS for rrset in message.authority)


def no_answer(what: str, query: Query, size: int, retry_plain: bool = False) -> Reply:
    """What the server says is no answer: ``what`` says why."""
    return Reply(what, False, (), query.name, 0, False, 0, False, size, retry_plain)
