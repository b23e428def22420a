"""One client of the control socket, from its Hello to its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as Late
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from mtatwist import __version__
from mtatwist.control import audit
from mtatwist.control.callers import Caller, Peer
from mtatwist.control.commands import (
    CODES,
    CONTRACT,
    BadArgument,
    Broken,
    ControlCommand,
    ControlError,
    Hello,
    NotAllowed,
    OtherVersion,
    Unavailable,
)

if TYPE_CHECKING:
    from mtatwist.control.server import ControlFactory

_log = Logger()

UNANSWERED = 8
"""Commands that one connection may have without their answers, and that it may send in one go."""

BOX_BYTES = 128 * 1024
"""Octets that a command may have; a value of AMP has at most half as many."""

BOX_SECONDS = 10.0
"""How long a command may take to come in; before the first one, counted from the connection."""

IDLE_SECONDS = 120.0
"""How long a connection may be silent between commands."""

ANSWER_SECONDS = 28.0
"""How long a command may take in all: whoever waits for its answer has been told of 30."""

DENIED_SECONDS = 1.0
"""How long a bad token waits for its answer."""

WORDS = 10_000
"""Characters of an error, which has to fit into a value, as each part of an answer has."""

#: What does a command: gets its arguments by name, gives its answer.
Responder = Callable[..., Awaitable[dict[str, Any]]]


class ControlConnection(amp.AMP):
    """One client. Nothing that it sends keeps the server from anything, or is forgotten."""

    transport: Any

    def __init__(self, factory: ControlFactory) -> None:
        super().__init__()
        self.factory = factory
        self._clock = factory.clock
        self._caller: Caller | None = None
        self._peer = Peer(-1, 0)
        self._unanswered: set[Deferred[Any]] = set()
        self._octets = 0
        self._boxes = 0
        self._leaving = False
        self._timer: IDelayedCall | None = None

    @property
    def uid(self) -> int:
        """Of the process at the other end."""
        return self._peer.uid

    def makeConnection(self, transport: Any) -> None:
        """(AMP) The parent would log each of them; commands are logged."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionMade(self) -> None:
        """(AMP) Who is it?"""
        self.factory.connections.add(self)
        self._expect(BOX_SECONDS)
        try:
            self._peer = self.factory.peer_of(self.transport.getHandle())
        except OSError as error:
            _log.error("control_peer_unknown", error=str(error))
            self.hang_up()
            return
        if self.factory.crowded(self.uid):
            self.factory.metrics.control_crowded.value += 1
            self.hang_up()
            return
        # Who takes no answers is not listened to.
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """(IPushProducer) There are answers that the client has not taken."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """(IPushProducer) It has taken them."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """(IPushProducer) It is gone: see connectionLost()."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """(AMP) Nobody waits for answers any more; what has begun goes on to its end."""
        self.factory.connections.discard(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None

    def dataReceived(self, data: bytes) -> None:
        """(AMP) A box has bounds in size and time."""
        if self._octets == 0:
            self._expect(BOX_SECONDS)
        self._octets += len(data)
        self._boxes = 0
        if self._octets > BOX_BYTES:
            self._refuse("a command is larger than any there is")
            return
        super().dataReceived(data)

    def lengthLimitExceeded(self, length: int) -> None:
        """(AMP) Those are no boxes."""
        self._refuse("what came is not AMP")

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """(AMP) We ask nothing: whatever comes must be a command."""
        if self._leaving:
            return
        self._octets = 0
        self._boxes += 1
        self._expect(IDLE_SECONDS)
        if amp.COMMAND not in box or amp.ASK not in box:
            self._refuse("a box is no command")
        elif len(self._unanswered) >= UNANSWERED or self._boxes > UNANSWERED:
            self._refuse("too many commands at once")
        else:
            super().ampBoxReceived(box)

    def locateResponder(self, name: bytes) -> Any:
        """(AMP) Only what the contract has; the parent's own StartTLS is no part of that."""
        return lambda box: self._begin(name, box)

    def sendBox(self, box: amp.AmpBox) -> None:
        """(AMP) Whoever is turned away is told why, and takes no place any longer."""
        super().sendBox(box)
        if self._leaving:
            self.transport.loseConnection()

    def _turn_away(self) -> None:
        """After the next answer, which is waited for no longer than a command."""
        if not self._leaving and self.transport is not None:
            self._leaving = True
            self._expect(BOX_SECONDS)
            # A transport with a producer would wait for that instead of being closed.
            self.transport.unregisterProducer()

    def hang_up(self) -> None:
        """End it at once."""
        self._leaving = True
        if self.transport is not None:
            self.transport.abortConnection()

    def _expect(self, seconds: float) -> None:
        """The client's next move has so much time."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._clock.callLater(seconds, self._silent)

    def _silent(self) -> None:
        if self._unanswered:
            # It is our turn.
            self._expect(IDLE_SECONDS)
        else:
            self._refuse("nothing came for too long")

    def _refuse(self, why: str) -> None:
        self.factory.metrics.control_refused.value += 1
        _log.warn("control_client_refused", uid=self._peer.uid, user=self._peer.user, pid=self._peer.pid, reason=why)
        self.hang_up()

    # A command.

    def _begin(self, name: bytes, box: amp.AmpBox) -> Deferred[amp.AmpBox]:
        done = Deferred.fromCoroutine(self._answer(name, box))
        self._unanswered.add(done)

        def ended(result: Any) -> Any:
            self._unanswered.discard(done)
            return result

        return done.addBoth(ended)

    async def _answer(self, name: bytes, box: amp.AmpBox) -> amp.AmpBox:
        """Do it, and write down that it was done, or why not. Raises RemoteAmpError."""
        began = self._clock.seconds()
        command = self.factory.commands.get(name)
        arguments: dict[str, Any] = {}
        answer: dict[str, Any] = {}
        response = amp.AmpBox()
        failed: ControlError | None = None
        try:
            if command is None:
                raise OtherVersion(f"this server, mtatwist {__version__}, does not know the command {_word(name)}")
            try:
                arguments = command.parseArguments(box, self)
            except Exception as error:
                raise BadArgument(f"the arguments can't be read: {type(error).__name__}: {error}") from None
            answer = await self._do(command, arguments)
            response = command.makeResponse(answer, self)
            if any(len(value) > amp.MAX_VALUE_LENGTH for value in response.values()):
                raise Unavailable("the answer is too long for this socket: ask for less")
        except ControlError as error:
            failed = error
        except Exception as error:
            _log.failure("control_crashed", command=_word(name))
            failed = Broken(f"{type(error).__name__}: the server's log has the reason")
        seconds = round(self._clock.seconds() - began, 3)
        audit.write(_word(name), command, arguments, self._caller, self._peer, answer, failed, seconds)
        if failed is None:
            self.factory.metrics.control_done.value += 1
            return response
        self.factory.metrics.control_failed.value += 1
        if isinstance(failed, NotAllowed) and self._caller is None:
            self._turn_away()
        raise amp.RemoteAmpError(CODES[type(failed)], str(failed)[:WORDS], False, local=Failure(failed))

    async def _do(self, command: type[ControlCommand], arguments: dict[str, Any]) -> dict[str, Any]:
        if not self.factory.callers.knows(self._peer):
            self.factory.metrics.control_denied.value += 1
            raise NotAllowed(f"the user {self._peer.user} may not use this socket: see control.group")
        if command is Hello:
            return await self._hello(**arguments)
        caller = self._caller
        if caller is None:
            self.factory.metrics.control_denied.value += 1
            raise NotAllowed("a connection begins with Hello")
        if not self.factory.callers.knows_still(caller):
            self._caller = None
            self.factory.metrics.control_denied.value += 1
            raise NotAllowed(f"the token {caller.token!r} is none of those configured any more")
        if command.admin and not caller.admin:
            self.factory.metrics.control_denied.value += 1
            raise NotAllowed(f'the token {caller.token!r} has the role "read": this command takes "admin"')
        if command.attributed:
            arguments = {**arguments, "by": _by(caller)}
        done = self.factory.turns(caller).run(
            lambda: Deferred.fromCoroutine(_call(self.factory.responders[command], arguments))
        )
        try:
            answer: dict[str, Any] = await done.addTimeout(ANSWER_SECONDS, self._clock)
        except Late:
            raise Unavailable(f"it was not done within {ANSWER_SECONDS:g} s") from None
        return answer

    async def _hello(self, contract: int, token: str | None) -> dict[str, Any]:
        if contract != CONTRACT:
            raise OtherVersion(
                f"mtactl speaks version {contract} of the contract, the server (mtatwist {__version__}) {CONTRACT}:"
                " use the mtactl that was installed with it"
            )
        callers = self.factory.callers
        self._caller = callers.caller(self._peer, token)
        if self._caller is None:
            self.factory.metrics.control_denied.value += 1
            # Whoever tries many, tries them slowly.
            await deferLater(self._clock, DENIED_SECONDS)
            raise NotAllowed("the token is none of those configured" if token else "the server wants a token")
        role = "admin" if self._caller.admin else "read"
        return {"contract": CONTRACT, "version": __version__, "role": role}


async def _call(responder: Responder, arguments: dict[str, Any]) -> dict[str, Any]:
    return await responder(**arguments)


def _by(caller: Caller) -> str:
    """The user, and the name of the token if there is one: "ann (operations)"."""
    return f"{caller.peer.user} ({caller.token})" if caller.token else caller.peer.user


def _word(name: bytes) -> str:
    return name[:64].decode("ascii", "backslashreplace")
