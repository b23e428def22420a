"""A SASL mechanism: a token instead of a password, as XOAUTH2 sends it."""

from __future__ import annotations

import re

from zope.interface import implementer

from mtatwist.auth.credentials import Login
from mtatwist.auth.mechanisms import BadResponse, IMechanism
from mtatwist.auth.prepare import prepare_name, prepare_password

_MESSAGE = re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01")


@implementer(IMechanism)
class Xoauth2:
    """One response, which the client sends without being asked for more."""

    def __init__(self) -> None:
        self._name = self._token = b""

    @property
    def claimed(self) -> str:
        """See IMechanism."""
        return self._name.decode("utf-8", "replace")

    def getChallenge(self) -> bytes:
        """Nothing: the client begins."""
        return b""

    def setResponse(self, response: bytes) -> None:
        """The name and the token."""
        match = _MESSAGE.fullmatch(response)
        if match is None:
            raise BadResponse("not of the form of XOAUTH2")
        self._name, self._token = match.groups()

    def moreChallenges(self) -> bool:
        """No."""
        return False

    def login(self, peer: str, session: str) -> Login:
        """The token goes where a password would; the checker knows what to do with it."""
        return Login(prepare_name(self._name), prepare_password(self._token), peer, session)
