"""SASL mechanisms by name: what a client may log in with.

To add one: a class here that provides IMechanism, and a line in :data:`REGISTRY`. Any IChallengeResponse of
twisted.mail's works too: then it is itself what the portal's checkers get.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable

from twisted.cred.error import UnauthorizedLogin
from twisted.mail.interfaces import IChallengeResponse
from zope.interface import Attribute, implementer

from mtatwist.auth.credentials import Login
from mtatwist.auth.prepare import prepare_name, prepare_password


class BadResponse(ValueError):
    """The client's response is not what the mechanism has there."""


class IMechanism(IChallengeResponse):
    """One exchange. setResponse() raises BadResponse."""

    claimed: str = Attribute("Who the client says it is, as it was sent; for the log.")

    def login(peer: str, session: str) -> Login:
        """What the exchange brought. Raises UnauthorizedLogin when that can't be right, whoever would be asked."""


@implementer(IMechanism)
class Plain:
    """PLAIN (RFC 4616): one response, with everything."""

    def __init__(self) -> None:
        self._authorization = self._name = self._password = b""

    @property
    def claimed(self) -> str:
        """See IMechanism."""
        return self._name.decode("utf-8", "replace")

    def getChallenge(self) -> bytes:
        """Empty: the client begins (RFC 4616 §2)."""
        return b""

    def setResponse(self, response: bytes) -> None:
        """[authorization identity] NUL name NUL password."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise BadResponse("not three parts")
        self._authorization, self._name, self._password = parts

    def moreChallenges(self) -> bool:
        """No."""
        return False

    def login(self, peer: str, session: str) -> Login:
        """Nobody may act as somebody else: an authorization identity is one's own name, or is left out."""
        name = prepare_name(self._name)
        if self._authorization and prepare_name(self._authorization) != name:
            raise UnauthorizedLogin("another authorization identity")
        return Login(name, prepare_password(self._password), peer, session)


@implementer(IMechanism)
class NameThenPassword:
    """LOGIN (draft-murchison-sasl-login): the name, then the password. Old, and the only one that many devices know.

    With an initial response, which the draft does not have and many clients send, that is the name.
    """

    _CHALLENGES = (b"Username:", b"Password:")

    def __init__(self) -> None:
        self._responses: list[bytes] = []

    @property
    def claimed(self) -> str:
        """See IMechanism."""
        return self._responses[0].decode("utf-8", "replace") if self._responses else ""

    def getChallenge(self) -> bytes:
        """Clients look at these words."""
        return self._CHALLENGES[len(self._responses)]

    def setResponse(self, response: bytes) -> None:
        """The name, or the password."""
        self._responses.append(response)

    def moreChallenges(self) -> bool:
        """Is the password still to come?"""
        return len(self._responses) < len(self._CHALLENGES)

    def login(self, peer: str, session: str) -> Login:
        """See IMechanism."""
        name, password = self._responses
        return Login(prepare_name(name), prepare_password(password), peer, session)


REGISTRY: dict[str, Callable[[], IChallengeResponse]] = {
    "PLAIN": Plain,
    "LOGIN": NameThenPassword,
}


def decode(response: bytes) -> bytes:
    """A response out of its BASE64 form, with everything refused that is none (RFC 4954 §4). Raises BadResponse."""
    try:
        decoded = binascii.a2b_base64(response)
    except binascii.Error:
        raise BadResponse("not BASE64") from None
    # The library skips what is foreign to the alphabet, and has several spellings of the same octets.
    if binascii.b2a_base64(decoded, newline=False) != response:
        raise BadResponse("not BASE64")
    return decoded


def encode(challenge: bytes) -> str:
    """A challenge in BASE64."""
    return binascii.b2a_base64(challenge, newline=False).decode("ascii")
