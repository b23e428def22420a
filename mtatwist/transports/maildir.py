"""Final delivery into Maildirs, by the standard library's mailbox module in a bounded pool of threads."""

from __future__ import annotations

import contextlib
import io
import mailbox
import os
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread, deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from mtatwist.envelope import Deferral, Delivered, Failure, Handed, Message, Outcome, Recipient
from mtatwist.interfaces import DirectoryTrouble, IDelivery, ITransport
from mtatwist.smtp.address import drop_detail
from mtatwist.smtp.downgrade import Level, Scan
from mtatwist.smtp.header import MAX_HEADER, header_end, without_field
from mtatwist.smtp.reply import Reply
from mtatwist.store.datadir import sync_directory

if TYPE_CHECKING:
    from mtatwist.interfaces import ISpool

_log = Logger()

THREADS = 4
READ_SIZE = 256 * 1024


@implementer(ITransport)
class MaildirTransport:
    """The next hop is a directory with {local} and {domain} in it."""

    def __init__(
        self,
        *,
        spool: ISpool,
        reactor: IReactorFromThreads,
        recipient_delimiter: str = "",
        keeps_detail: Callable[[str], Awaitable[bool]] | None = None,
        **_: Any,
    ) -> None:
        """``recipient_delimiter`` begins a detail ("": nothing does), which is no part of {local}; but for addresses
        that are somebody of their own with it, of which ``keeps_detail`` tells, or raises DirectoryTrouble."""
        self._spool = spool
        self._reactor = reactor
        self._delimiter = recipient_delimiter
        self._keeps_detail = keeps_detail
        self._pool = ThreadPool(0, THREADS, name="mtatwist-maildir")
        self._pool.start()

    async def connect(self, next_hop: str) -> IDelivery:
        """See ITransport: there is nothing to connect to."""
        return MaildirDelivery(self, next_hop)

    def stop(self) -> None:
        """End the threads."""
        self._pool.stop()

    async def deliver(self, template: str, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        """Put the message into each recipient's Maildir; an outcome each."""
        outcomes: list[Outcome] = []
        for recipient in recipients:
            try:
                path = _path(template, await self._mailbox(recipient.address))
                await deferToThreadPool(self._reactor, self._pool, self._store, path, message)
            except _Unfit as unfit:
                outcomes.append(Failure(unfit.reply))
            except DirectoryTrouble as trouble:
                _log.info("mailbox_unknown", id=message.id, address=recipient.address, error=str(trouble))
                outcomes.append(Deferral(Reply(451, "4.4.3", "Cannot tell now whose mailbox that address is")))
            except Exception as error:
                _log.error("maildir_failed", id=message.id, address=recipient.address, error=str(error))
                outcomes.append(Deferral(Reply(451, "4.2.0", "The mailbox could not be written")))
            else:
                outcomes.append(Delivered(Reply(250, "2.0.0", "Delivered to the mailbox"), handed=Handed.MAILBOX))
        return outcomes

    async def _mailbox(self, address: str) -> str:
        """The address whose Maildir gets the mail of ``address``. Raises DirectoryTrouble."""
        bare = drop_detail(address, self._delimiter)
        if bare != address and self._keeps_detail is not None and await self._keeps_detail(address):
            return address
        return bare

    def _store(self, path: str, message: Message) -> None:
        """In a thread: a durable new message, with Return-Path on top and no other (RFC 5321 §4.4)."""

        def read(offset: int, size: int) -> bytes:
            data: bytes = blockingCallFromThread(self._reactor, self._spool.read, message, offset, size)  # type: ignore[arg-type]
            return data

        parts = _as_text(read, message)
        head = b""
        while header_end(head) < 0 and len(head) < MAX_HEADER and (part := next(parts, b"")):
            head += part
        end = header_end(head)
        if end < 0:
            end = len(head)
        return_path = f"Return-Path: <{message.envelope.reverse_path}>\r\n".encode()
        top = return_path + without_field(head[:end], b"Return-Path") + head[end:]
        _make(path)
        # The module turns CRLF to the line ends that Maildirs have, and syncs the file; its name is ours to sync.
        mailbox.Maildir(path, factory=None, create=False).add(io.BufferedReader(_Stream(chain([top], parts))))
        sync_directory(os.path.join(path, "new"))


class _Unfit(Exception):
    """The message can't be kept there; the reply says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def _parts(read: Callable[[int, int], bytes], size: int) -> Iterator[bytes]:
    """A message, part by part: never is it in memory whole."""
    offset = 0
    while part := read(offset, READ_SIZE):
        yield part
        offset += len(part)
    if offset != size:
        raise OSError("the message in the spool is not whole")


def _as_text(read: Callable[[int, int], bytes], message: Message) -> Iterator[bytes]:
    """The message in lines. What came as BINARYMIME (RFC 3030 §3) has octets that a change of line ends would spoil:
    it is encoded. Raises _Unfit."""
    if message.envelope.body_type != "BINARYMIME":
        return _parts(read, message.size)
    scan = Scan(Level.EIGHT_BIT)
    for part in _parts(read, message.size):
        scan.feed(part)
    plan = scan.finish()
    if not plan.needed:
        return _parts(read, message.size)
    if plan.obstacle is not None:
        raise _Unfit(Reply(554, plan.obstacle.value, f"Conversion is needed and not possible: {plan.why}"))
    converter = plan.converter()
    return chain(map(converter.feed, _parts(read, message.size)), _at_last(converter.end))


def _at_last(end: Callable[[], bytes]) -> Iterator[bytes]:
    yield end()


class _Stream(io.RawIOBase):
    """The parts of a message as a file that can be read once."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._part = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._part:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._part = part
        count = min(len(buffer), len(self._part))
        buffer[:count] = self._part[:count]
        self._part = self._part[count:]
        return count


@implementer(IDelivery)
class MaildirDelivery:
    """See IDelivery."""

    usable = True

    def __init__(self, transport: MaildirTransport, template: str) -> None:
        self._transport = transport
        self._template = template

    async def deliver(self, message: Message, recipients: Sequence[Recipient]) -> list[Outcome]:
        """See IDelivery."""
        return await self._transport.deliver(self._template, message, recipients)

    def close(self) -> None:
        """See IDelivery."""


def refuse(address: str) -> Reply | None:
    """The reply to an address that can be no Maildir; None: it can. The receiver asks, too: at RCPT nobody bounces."""
    local, _, domain = address.rpartition("@")
    if _is_safe(local) and _is_safe(domain):
        return None
    return Reply(550, "5.1.3", "This address can't be a mailbox here")


def _path(template: str, address: str) -> str:
    """The Maildir of ``address``: one, in whatever case it is written. Raises _Unfit."""
    refusal = refuse(address)
    if refusal is not None:
        raise _Unfit(refusal)
    local, _, domain = address.rpartition("@")
    return template.format(local=unicodedata.normalize("NFC", local).lower(), domain=domain.lower())


def _make(path: str) -> None:
    """The Maildir ``path``, if it or a part of it is missing; several threads may do it at once."""
    for name in ("tmp", "cur", "new"):
        directory = os.path.join(path, name)
        missing = []
        while not os.path.isdir(directory):
            missing.append(directory)
            directory = os.path.dirname(directory)
        for directory in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            sync_directory(os.path.dirname(directory))


def _is_safe(name: str) -> bool:
    """Can ``name`` be part of a path without leading out of its directory?"""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name
