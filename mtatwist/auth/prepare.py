"""Names and passwords in the one form in which they are compared (RFC 8265, which replaces SASLprep).

Everything that takes a name or a password from outside brings it through here, so that a login and the user list agree
on what is the same. What can't be prepared can be nobody's: a wrong login, and never an exception of another kind.
"""

from __future__ import annotations

from precis_i18n import get_profile
from twisted.cred.error import UnauthorizedLogin

NAME_LIMIT = 1024
"""Octets of a user name, in UTF-8. RFC 4616 §2 wants 255 at least; no directory has longer ones than this."""

PASSWORD_LIMIT = 1024
"""Octets of a password, in UTF-8: more only makes hashing it slow."""

_NAME = get_profile("UsernameCaseMapped")
_PASSWORD = get_profile("OpaqueString")


class Unprepared(UnauthorizedLogin, ValueError):
    """This can be nobody's name, or nobody's password; the message says why, and does not repeat it."""


def prepare_name(name: bytes | str) -> str:
    """A user name by the UsernameCaseMapped profile (RFC 8265 §3.3): in lower case, since directories don't tell
    Alice from alice, and a lockout that did could be walked around. Raises Unprepared.

    It may have parts with spaces between them (§3.1); several spaces count as one, as they do to a directory.
    """
    text = _text(name, NAME_LIMIT, "the name")
    if text.startswith(" ") or text.endswith(" "):
        raise Unprepared("the name begins or ends with a space")
    return " ".join(_enforce(_NAME, part, "the name") for part in text.split(" ") if part)


def prepare_password(password: bytes | str) -> str:
    """A password by the OpaqueString profile (RFC 8265 §4.2): as it is, but for its Unicode form and the kinds of
    spaces. Raises Unprepared."""
    return _enforce(_PASSWORD, _text(password, PASSWORD_LIMIT, "the password"), "the password")


def _text(value: bytes | str, limit: int, what: str) -> str:
    try:
        octets = value if isinstance(value, bytes) else value.encode()
        text = octets.decode()
    except UnicodeError:
        raise Unprepared(f"{what} is not UTF-8") from None
    if not octets:
        raise Unprepared(f"{what} is empty")
    if len(octets) > limit:
        raise Unprepared(f"{what} is longer than {limit} octets")
    return text


def _enforce(profile: object, text: str, what: str) -> str:
    try:
        prepared: str = profile.enforce(text)  # type: ignore[attr-defined]
    except UnicodeEncodeError as error:
        # Only the reason: the error knows the text itself.
        raise Unprepared(f"{what} has a character that is not allowed ({error.reason})") from None
    return prepared
