"""Logging in within a session: the AUTH command and its exchange (RFC 4954), and what comes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import fail
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure

from mtatwist.auth.credentials import AuthUnavailable, HopelessLogin, IHopelessLogin
from mtatwist.auth.mechanisms import BadResponse, IMechanism, decode, encode
from mtatwist.receive.attempt import Attempt
from mtatwist.receive.connection import LOGGED
from mtatwist.receive.content import ContentConnection
from mtatwist.smtp import command, reply
from mtatwist.smtp.reply import Reply
from mtatwist.transaction import Account, Session

_log = Logger()

MAX_RESPONSE_LINE = 12288
"""Octets of a client's response with its CRLF (RFC 4954 §4)."""

LOGGED_IN = Reply(235, "2.7.0", "Authentication succeeded")
WRONG = Reply(535, "5.7.8", "Authentication credentials invalid")
UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure, try again later")
ABORTED = Reply(501, "5.7.0", "Authentication aborted")
BAD_RESPONSE = Reply(501, "5.5.2", "Cannot decode that response")
RESPONSE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
UNKNOWN_MECHANISM = Reply(504, "5.5.4", "That mechanism is not offered")
TLS_FIRST = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
ENCRYPTION_REQUIRED = Reply(538, "5.7.11", "Encryption required: issue a STARTTLS command first")
PIPELINED = Reply(503, "5.5.1", "Nothing may follow AUTH before its reply")
TOO_MANY_FAILURES = Reply(421, "4.7.0", "Too many failed logins")


@dataclass(frozen=True, slots=True)
class Logins:
    """How a listener lets people log in. ``challengers`` make an IChallengeResponse, by the mechanism's name; with
    none there is no AUTH. ``failures``: failed logins in a session before it is ended."""

    challengers: dict[bytes, Callable[[], Any]] = field(default_factory=dict)
    require_tls: bool = True
    failures: int = 3


class LoginConnection(ContentConnection):
    """A connection that may become somebody's."""

    challenger: Any

    def __init__(self, *arguments: Any, logins: Logins, **settings: Any) -> None:
        super().__init__(*arguments, chal=logins.challengers, **settings)
        self._logins = logins
        self._mechanism = b""
        self._auth_said = False
        self._failed_logins = 0
        self._attempt: Attempt | None = None

    def _expect_response(self, expected: bool) -> None:
        """Are the next lines responses, or commands?"""
        self.mode = smtp.AUTH if expected else smtp.COMMAND

    @property
    def _tls_is_due(self) -> bool:
        """Must TLS come before anything that says who somebody is?"""
        return bool(self.challengers) and self._logins.require_tls and not self.startedTLS

    @property
    def _offers_login(self) -> bool:
        return bool(self.challengers) and not self.authenticated and not self._tls_is_due

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever was about to log in won't."""
        self._closing = True
        if self.mode == smtp.AUTH:
            self._metrics.auth_aborted.value += 1
        if self._attempt is not None:
            self._metrics.auth_aborted.value += 1
            self._attempt.abandon()
        self._log_out()
        super().connectionLost(reason)

    def _said(self) -> str:
        """Clients that don't listen send the password as if it were a command, when AUTH was refused: where people log
        in, only what is a command is repeated."""
        said = super()._said()
        if not said or not (self._auth_said or self.challengers):
            return said
        verb = said.replace("\t", " ").partition(" ")[0]
        if self.lookupMethod(verb.upper()) is None:
            return "?"
        return said if said == verb or command.names_path(self._line) else verb

    def ext_AUTH(self, rest: str) -> None:
        """RFC 4954 §4."""
        self._auth_said = True
        mechanism, _, initial = rest.strip().partition(" ")
        initial = initial.strip()
        if not mechanism or " " in initial:
            self._refuse(Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]"))
        elif not self.challengers or self.authenticated or self._busy() or not self.session.extended:
            self._refuse(reply.BAD_SEQUENCE)
        elif self._tls_is_due:
            self._refuse(ENCRYPTION_REQUIRED)
        elif mechanism.upper().encode() not in self.challengers:
            self._refuse(UNKNOWN_MECHANISM)
        else:
            self._mechanism = mechanism.upper().encode()
            self.challenger = self.challengers[self._mechanism]()
            challenge = self.challenger.getChallenge()
            if not initial:
                self._challenge(challenge)
            else:
                # RFC 4954 §4: what has to be said in one go, and is, may have more commands behind it.
                self._respond(b"" if initial == "=" else initial.encode(), may_go_on=True)

    def state_AUTH(self, response: bytes) -> None:
        """(ESMTP) One line of the exchange."""
        if response == b"*":
            self._give_up(ABORTED)
        else:
            self._respond(response, may_go_on=False)

    def _challenge(self, challenge: bytes) -> None:
        if self._at < len(self._buffer):
            self._cut_off()
        else:
            self._expect_response(True)
            self.answer(Reply(334, "", encode(challenge)))

    def _respond(self, response: bytes, may_go_on: bool) -> None:
        try:
            self.challenger.setResponse(decode(response))
        except BadResponse:
            self._give_up(BAD_RESPONSE)
            return
        if self.challenger.moreChallenges():
            self._challenge(self.challenger.getChallenge())
        elif self._at < len(self._buffer) and not may_go_on:
            self._cut_off()
        else:
            self._check_login()

    def _give_up(self, why: Reply) -> None:
        """The exchange ends before there is anything to check."""
        self._metrics.auth_aborted.value += 1
        self.challenger = None
        self._expect_response(False)
        self._refuse(why)

    def _cut_off(self) -> None:
        """What was sent ahead may be a password: it is not read as a command."""
        self._give_up(PIPELINED)
        self._end()

    def _check_login(self) -> None:
        """Ask the portal. The session learns who it is only if the answer comes in time: until then it is a copy of
        the session that logs in."""
        challenger, self.challenger = self.challenger, None
        self._expect_response(False)
        who = str(getattr(challenger, "claimed", ""))[:LOGGED]
        claimant = replace(self.session)
        try:
            ours = IMechanism.providedBy(challenger)
            credentials = challenger.login(self.session.peer, self.session.id) if ours else challenger
        except UnauthorizedLogin as error:
            credentials = HopelessLogin(who, self.session.peer, self.session.id, str(error))
        if isinstance(credentials, HopelessLogin) and IHopelessLogin not in self.portal.listCredentialsInterfaces():
            pending = fail(UnauthorizedLogin(credentials.reason))
        else:
            pending = self.portal.login(credentials, claimant, smtp.IMessageDeliveryFactory, smtp.IMessageDelivery)
        self._attempt = attempt = Attempt(pending, self._clock)
        # The attempt has its own bound: the peer is not to blame for how long it takes.
        self.setTimeout(None)
        self._wait_for(attempt.done, lambda _: self._checked(attempt.result, claimant, who))

    def _checked(self, result: Any, claimant: Session, who: str) -> None:
        self._attempt = None
        self.setTimeout(self._timeouts.command)
        session, mechanism = self.session, self._mechanism.decode("ascii")
        facts: dict[str, Any] = {"session": session.id, "peer": session.peer, "mechanism": mechanism}
        if not isinstance(result, Failure):
            self._log_out()
            self._cbAuthenticated(result)
            session.account = claimant.account or Account(who)
            self._metrics.auth_succeeded.value += 1
            _log.info("login", **facts, user=session.user, tls=session.tls)
            self.answer(LOGGED_IN)
        elif result.check(UnauthorizedLogin, LoginDenied):
            self._metrics.auth_refused.value += 1
            self._failed_logins += 1
            _log.info("login_refused", **facts, user=who, tls=session.tls, reason=result.getErrorMessage()[:LOGGED])
            self._reject(WRONG)
            if self._failed_logins >= self._logins.failures:
                self._end(TOO_MANY_FAILURES)
        else:
            self._metrics.auth_unavailable.value += 1
            if result.check(AuthUnavailable):
                _log.warn("login_unavailable", **facts, user=who, reason=result.getErrorMessage()[:LOGGED])
            else:
                self._metrics.auth_crashes.value += 1
                _log.failure("checker_crashed", result, **facts)
            self._reject(UNAVAILABLE)
        if self._stopping:
            self._end(reply.SHUTDOWN)

    def _log_out(self) -> None:
        """Nobody is logged in, and nobody judges transactions."""
        logout, self._onLogout = self._onLogout, None
        if logout is not None:
            try:
                logout()
            except Exception:
                _log.failure("logout_crashed", session=self.session.id)
        self._stream = self.delivery = self.deliveryFactory = None
        self.authenticated = False
        self.session.account = None
