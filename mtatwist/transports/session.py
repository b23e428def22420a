"""The beginning of a session with a next hop: greeting, EHLO and STARTTLS (RFC 5321 §3.1, §3.2, RFC 3207)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mtatwist.envelope import Deferral
from mtatwist.smtp.reply import Reply
from mtatwist.transports.client import ConnectionBroken, SmtpWire
from mtatwist.transports.dial import Target
from mtatwist.transports.failures import ConnectFailed


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Seconds to wait for each (RFC 5321 §4.5.3.2)."""

    connect: float
    greeting: float
    ehlo: float
    mail: float
    rcpt: float
    data_init: float
    data_block: float
    data_done: float
    quit: float


@dataclass(frozen=True, slots=True)
class Session:
    """A server that is ready for MAIL, and what it ``offered``: extensions by keyword, with their parameters.

    ``tls`` is "" in clear, else version and cipher; ``no_tls`` is why what was offered did not come about.
    """

    wire: SmtpWire
    target: Target
    offered: dict[str, str]
    tls: str = ""
    no_tls: str = ""


class TlsFailed(Exception):
    """TLS was offered and did not come about; the text says why."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How sessions are begun: ``verb`` is EHLO or LHLO (RFC 2033 §4.1), ``name`` our own.

    ``tls`` is none, may, require or verify; ``context(host, verify)`` gives the connection creator for STARTTLS.
    """

    verb: bytes
    name: bytes
    tls: str
    context: Callable[[str, bool], Any]
    timeouts: ClientTimeouts

    async def open(self, wire: SmtpWire, target: Target, *, in_clear: bool = False) -> Session:
        """Begin a session on a new connection. Raises ConnectFailed, or TlsFailed when a second try could help.

        ``in_clear``: leave out what TLS could be had.
        """
        try:
            return await self._open(wire, target, "none" if in_clear else self.tls)
        except ConnectionBroken as broken:
            why = f"Connection to {target.name} failed: {broken}"
            raise ConnectFailed(Deferral(Reply(451, "4.4.2", why))) from None
        except (ConnectFailed, TlsFailed):
            raise
        except BaseException:
            # Whatever it is (we may be told to give up), nobody else holds this connection.
            wire.break_off("given up")
            raise

    async def _open(self, wire: SmtpWire, target: Target, tls: str) -> Session:
        greeting = await wire.reply(self.timeouts.greeting)
        self._want(wire, greeting, 220, target)
        offered = await self._hello(wire, target)
        if tls == "none" or (tls == "may" and target.is_local):
            return Session(wire, target, offered)
        if "STARTTLS" in offered:
            reply = await wire.ask(b"STARTTLS", self.timeouts.ehlo)
            if reply.code == 220:
                return await self._secure(wire, target, verify=tls == "verify")
            if tls == "may" and not wire.leaving:
                return Session(wire, target, offered, no_tls=str(reply))
            self._want(wire, reply, 220, target)
        if tls == "may":
            return Session(wire, target, offered)
        wire.quit(self.timeouts.quit)
        raise ConnectFailed(Deferral(Reply(450, "4.7.4", f"TLS is required, and {target.name} does not offer it")))

    async def _secure(self, wire: SmtpWire, target: Target, *, verify: bool) -> Session:
        try:
            context = self.context("" if target.is_local else target.host, verify)
        except Exception as error:
            # The name may come from a stranger's MX record, and be none that TLS could ask for.
            wire.break_off("no TLS")
            raise TlsFailed(f"cannot ask for {target.host}: {error}") from None
        wire.start_tls(context)
        try:
            # What was offered in clear is forgotten (RFC 3207 §4.2).
            offered = await self._hello(wire, target)
        except ConnectionBroken as broken:
            raise TlsFailed(str(broken)) from None
        handle = wire.transport.getHandle()
        tls = f"{handle.get_protocol_version_name()} with cipher {handle.get_cipher_name()}"
        return Session(wire, target, offered, tls)

    async def _hello(self, wire: SmtpWire, target: Target) -> dict[str, str]:
        """EHLO, or HELO where that is all the server knows; gives the extensions it offers."""
        reply = await wire.ask(self.verb + b" " + self.name, self.timeouts.ehlo)
        if reply.permanent and self.verb == b"EHLO":
            reply = await wire.ask(b"HELO " + self.name, self.timeouts.ehlo)
            self._want(wire, reply, 250, target)
            return {}
        self._want(wire, reply, 250, target)
        lines = (line.partition(" ") for line in reply.text.split("\n")[1:])
        return {keyword.upper(): arguments for keyword, _, arguments in lines}

    def _want(self, wire: SmtpWire, reply: Reply, code: int, target: Target) -> None:
        """A server that does not want us is no verdict on a message, not even with 5xx: try again later."""
        if reply.code != code:
            wire.quit(self.timeouts.quit)
            raise ConnectFailed(Deferral(reply, target.host))
