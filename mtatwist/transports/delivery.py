"""Message after message over one session (RFC 5321 §3.3, RFC 2920, RFC 3030; RFC 2033 for LMTP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import implementer

from mtatwist.envelope import Deferral, Failure, Handed, Message, Outcome, Recipient
from mtatwist.interfaces import IDelivery
from mtatwist.smtp.data import DotWriter
from mtatwist.smtp.reply import Reply
from mtatwist.transports.attempt import Attempt
from mtatwist.transports.body import Body, Unreadable
from mtatwist.transports.client import ConnectionBroken
from mtatwist.transports.commands import mail_command, rcpt_command
from mtatwist.transports.failures import Stale
from mtatwist.transports.form import NEEDS_SMTPUTF8, CannotSend, Form, choose_form, paths_for
from mtatwist.transports.session import ClientTimeouts, Session

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool
    from mtatwist.metrics.instruments import Instruments

_log = Logger()

PATIENCE = 4
"""How many replies to RCPT may take their full time: a server with a hundred that all do is not worth waiting for."""


@implementer(IDelivery)
class SmtpDelivery:
    """One connection to one server. ``mailbox``: it speaks LMTP, and answers for each recipient at the end."""

    def __init__(
        self,
        session: Session,
        *,
        spool: ISpool,
        timeouts: ClientTimeouts,
        metrics: Instruments,
        mailbox: bool = False,
    ) -> None:
        self._session = session
        self._wire = session.wire
        self._offered = session.offered
        self._spool = spool
        self._timeouts = timeouts
        self._metrics = metrics
        self._mailbox = mailbox
        self._used = False
        self._fit = True

    @property
    def usable(self) -> bool:
        """See IDelivery."""
        return self._fit and not self._wire.broken and not self._wire.leaving

    def close(self) -> None:
        """See IDelivery."""
        self._wire.quit(self._timeouts.quit)

    async def deliver(self, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        """See IDelivery. Raises Stale when a reused connection was gone before anything was answered."""
        host = self._session.target.host
        limit = self._offered.get("SIZE", "")
        if limit.isdecimal() and 0 < int(limit) < message.size:
            why = f"The message is larger than the {limit} octets that {host} takes"
            return [Failure(Reply(552, "5.3.4", why))] * len(recipients)
        attempt = Attempt(host, len(recipients), self._handed(), self._session.tls)
        body = Body(self._spool, message)
        paths = paths_for(message, [recipient.address for recipient in recipients], self._offered)
        for index, path in enumerate(paths.forward):
            if path is None:
                attempt.settle([index], NEEDS_SMTPUTF8, ours=True)
        if not attempt.open:
            return attempt.outcomes()
        try:
            form = await choose_form(message, paths, body, self._offered)
        except CannotSend as cannot:
            attempt.all_open(cannot.reply, ours=True)
            return attempt.outcomes()
        except Unreadable as unreadable:
            return [Deferral(Reply(451, "4.3.0", str(unreadable)))] * len(recipients)
        if form.conversion is not None:
            self._metrics.conversions.value += 1
            _log.info("converted", id=message.id, host=host, signature_broken=form.conversion.signed)
        mail = mail_command(message, paths.reverse or "", form, self._offered)
        rcpts = [(i, rcpt_command(recipients[i], paths.forward[i] or "", form, self._offered)) for i in attempt.open]
        try:
            if await self._envelope(mail, rcpts, form, attempt):
                await self._content(message, body, form, attempt)
        except ConnectionBroken as broken:
            if self._used and not attempt.answered and (self._wire.left or not attempt.begun):
                raise Stale from None
            if attempt.uncertain and attempt.open:
                self._may_be_taken(message, str(broken))
            why = f"Connection to {self._session.target.name} failed: {broken}"
            attempt.all_open(Reply(451, "4.4.2", why), ours=True)
        except BaseException:
            # Whatever it is: what comes next would be taken for the rest of this message.
            self._wire.break_off("given up")
            raise
        self._used = True
        return attempt.outcomes()

    def _handed(self) -> Handed:
        if self._mailbox:
            return Handed.MAILBOX
        return Handed.NOTIFYING if "DSN" in self._offered else Handed.RELAYED

    async def _envelope(self, mail: bytes, rcpts: Sequence[tuple[int, bytes]], form: Form, attempt: Attempt) -> bool:
        """MAIL and RCPT, and DATA where that is what follows; True when the message is to be sent."""
        wire, timeouts = self._wire, self._timeouts
        pipelining = "PIPELINING" in self._offered
        total = timeouts.mail + min(len(rcpts), PATIENCE) * timeouts.rcpt + timeouts.data_init
        with wire.within(total, "no reply in time"):
            if pipelining:
                wire.send(mail, *(line for _, line in rcpts), *([] if form.chunking else [b"DATA"]))
            else:
                wire.send(mail)
            attempt.begun = True
            reply = await self._answer(timeouts.mail)
            if reply.code == 421 and self._used:
                # A server that is closing says nothing about this message.
                raise Stale
            attempt.answered = True
            refused = None if reply.positive else reply
            if refused and not pipelining:
                rcpts = []
            accepted = False
            for index, line in rcpts:
                if reply.code == 421:
                    break
                if not pipelining:
                    wire.send(line)
                reply = await self._answer(timeouts.rcpt)
                accepted = accepted or reply.positive
                if not refused:
                    attempt.rcpt(index, reply)
            if refused:
                attempt.all_open(refused)
            if reply.code == 421:
                attempt.all_open(reply)
                return False
            data = None
            if not form.chunking and (pipelining or attempt.open):
                if not pipelining:
                    wire.send(b"DATA")
                data = await wire.reply(timeouts.data_init)
        if data is None:
            if not attempt.open:
                await self._reset()
            return bool(attempt.open)
        return await self._invited(data, attempt, accepted)

    async def _invited(self, data: Reply, attempt: Attempt, accepted: bool) -> bool:
        """Does the reply to DATA mean that the message is to be sent? ``accepted``: some RCPT was."""
        if data.code == 354 and attempt.open:
            return True
        if data.code == 354 and not accepted and not self._mailbox:
            # RFC 2920 §3.1: the server goes on without recipients; end the message it waits for.
            self._wire.begin_content(1)
            await self._wire.write(b".\r\n", self._timeouts.data_block)
            self._wire.end_content()
            await self._wire.reply(self._timeouts.data_done)
        elif data.positive:
            # Of 2xx nothing follows: nothing was sent, so nothing was taken. A server that waits for a message
            # although MAIL was refused must not get one, not even an empty one.
            attempt.all_open(Reply(451, "4.5.0", f"Unexpected reply to DATA: {data}"), ours=True)
            self._wire.break_off("server is out of step")
        else:
            attempt.all_open(data)
            if not self._wire.leaving:
                await self._reset()
        return False

    async def _content(self, message: Message, body: Body, form: Form, attempt: Attempt) -> None:
        """Send the message, and hear what becomes of it."""
        wire, timeouts = self._wire, self._timeouts
        # One reply for all, or one for each recipient that was accepted.
        waiting = [[index] for index in attempt.open] if self._mailbox else [list(attempt.open)]
        wire.begin_content(len(waiting))
        try:
            await self._write(message, body, form)
        except Unreadable as unreadable:
            # Cutting the connection is the only way to end a message that must not be taken.
            wire.break_off(str(unreadable))
            attempt.all_open(Reply(451, "4.3.0", str(unreadable)), ours=True)
            return
        except ConnectionBroken:
            if not wire.refused:
                raise
        if wire.refused:
            # Said no before it had the whole message: that counts, and it won't get the rest.
            wire.break_off("server refused the message before its end")
            while waiting and wire.refused:
                attempt.settle(waiting.pop(0), await wire.reply(0))
            attempt.all_open(Reply(451, "4.4.2", wire.broken), ours=True)
            return
        wire.end_content()
        attempt.uncertain = True
        with wire.within(min(len(waiting), PATIENCE) * timeouts.data_done, "no reply in time"):
            for group in waiting:
                reply = await wire.reply(timeouts.data_done)
                attempt.settle(group, reply)
                if reply.code == 421:
                    # It should mean that the message was not taken; servers that are stopped say it too late.
                    self._may_be_taken(message, str(reply))
                    attempt.all_open(reply)
                    return
        if 300 <= reply.code < 400:
            self._fit = False
        elif form.chunking and not reply.positive:
            # RFC 3030 §2: nobody knows what state the server is in now.
            await self._reset()

    async def _write(self, message: Message, body: Body, form: Form) -> None:
        """The message, to its end, or until the server refuses it."""
        dots = None if form.chunking else DotWriter()
        converter = form.conversion.converter() if form.conversion else None
        data = b"BDAT %d LAST\r\n" % message.size if form.chunking else b""
        while True:
            part = await body.part()
            if converter is not None:
                part = converter.feed(part) + (converter.end() if body.at_end else b"")
            if dots is not None:
                part = dots.feed(part) + (dots.end() if body.at_end else b"")
            await self._wire.write(data + part if data else part, self._timeouts.data_block)
            if body.at_end or self._wire.refused:
                return
            data = b""

    def _may_be_taken(self, message: Message, why: str) -> None:
        """It is sent again all the same: twice is better than never (RFC 5321 §4.5.3.2.6, RFC 1047)."""
        self._metrics.uncertain.value += 1
        _log.warn("delivery_uncertain", id=message.id, host=self._session.target.host, why=why)

    async def _reset(self) -> None:
        """End a transaction that got no message; a server that can't do even that gets no other."""
        reply = await self._wire.ask(b"RSET", self._timeouts.mail)
        self._fit = self._fit and reply.code == 250

    async def _answer(self, seconds: float) -> Reply:
        """The reply to MAIL or RCPT. Raises ConnectionBroken when it is no such reply."""
        reply = await self._wire.reply(seconds)
        if 300 <= reply.code < 400:
            self._wire.break_off(f"unexpected reply: {reply}")
            raise ConnectionBroken(self._wire.broken)
        return reply
