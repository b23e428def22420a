"""The contract between mtactl and the server: every command of the control socket, its arguments, answers and errors.

A connection begins with Hello. Values are those of AMP: at most 64 KiB, which is why whatever may be long is read in
pages. A page gives ``rows`` and, if there may be more, a ``cursor``: hand that in as ``after`` for the next one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
from twisted.protocols import amp

CONTRACT = 1
"""The version of this contract: it changes whenever an older mtactl would misunderstand a server, or the other way."""

PAGE_BYTES = 60_000
"""Octets of JSON in a page: it has to fit into a value."""


class ControlError(Exception):
    """Why a command was not done; the message says the cause and, where there is one, the cure."""


class NotAllowed(ControlError):
    """Whoever asks may not: a token is missing or wrong, its role is too small, or the user is a stranger."""


class OtherVersion(ControlError):
    """mtactl and the server don't speak the same contract."""


class BadArgument(ControlError):
    """What was asked for makes no sense."""


class NotFound(ControlError):
    """There is no such thing."""


class Unavailable(ControlError):
    """Not now: something that it takes is away, too slow or too busy."""


class Broken(ControlError):
    """A mistake of the server's own; its log has the traceback."""


CODES: dict[type[Exception], bytes] = {
    NotAllowed: b"NOT_ALLOWED",
    OtherVersion: b"OTHER_VERSION",
    BadArgument: b"BAD_ARGUMENT",
    NotFound: b"NOT_FOUND",
    Unavailable: b"UNAVAILABLE",
    Broken: b"BROKEN",
}
"""What each error is called on the wire."""


class Json(amp.Argument):
    """Any value that JSON has."""

    def toString(self, value: Any) -> bytes:
        """(Argument) As it is sent."""
        return orjson.dumps(value, default=str)

    def fromString(self, text: bytes) -> Any:
        """(Argument) As it was sent."""
        return orjson.loads(text)


def _text(name: str) -> tuple[bytes, amp.Argument]:
    return name.encode(), amp.Unicode(optional=True)


class ControlCommand(amp.Command):
    """One command.

    :cvar admin: whether it takes the role "admin"; else "read" will do.
    :cvar secrets: names of arguments that are never written down.
    :cvar attributed: whether what does it is told ``by`` whom it was asked for, in words for the log.
    """

    admin: ClassVar[bool] = False
    attributed: ClassVar[bool] = False
    secrets: ClassVar[frozenset[str]] = frozenset()
    errors: ClassVar[dict[type[Exception], bytes]] = CODES


_PAGE = [(b"rows", Json()), _text("cursor")]

SELECTION = [
    # A queue id.
    _text("id"),
    # The reverse path, "<>" for the null one; here and in the next ones "*" stands for any text.
    _text("sender"),
    _text("recipient"),
    _text("domain"),
    # Who had logged in.
    _text("user"),
    # Seconds since it was received, at least.
    (b"older", amp.Float(optional=True)),
    # pending, deferred or held.
    _text("state"),
    # How the last reply began, "4", "450" or "4.7.1".
    _text("code"),
    # The smart host, socket or directory of the route, or the domain where exchanges are looked for.
    _text("next_hop"),
]
"""What the verbs of the queue select recipients by: all that are given have to match."""


class Hello(ControlCommand):
    """The first command: who asks, and whether both sides speak the same contract. ``role``: what this caller has."""

    secrets = frozenset({"token"})
    arguments: ClassVar[Any] = [(b"contract", amp.Integer()), _text("token")]
    response: ClassVar[Any] = [(b"contract", amp.Integer()), (b"version", amp.Unicode()), (b"role", amp.Unicode())]


# The queue.


class QueueList(ControlCommand):
    """Messages with at least one recipient that matches, the oldest first."""

    arguments: ClassVar[Any] = [*SELECTION, _text("after")]
    response: ClassVar[Any] = _PAGE


class QueueShow(ControlCommand):
    """One message and its recipients, a page of them at a time."""

    arguments: ClassVar[Any] = [(b"id", amp.Unicode()), _text("after")]
    response: ClassVar[Any] = [(b"message", Json()), *_PAGE]


class QueueRead(ControlCommand):
    """A part of a message's content from ``offset`` octets on; empty at its end."""

    admin = True
    arguments: ClassVar[Any] = [(b"id", amp.Unicode()), (b"offset", amp.Integer())]
    response: ClassVar[Any] = [(b"data", amp.String())]


class QueueChange(ControlCommand):
    """Do something to all recipients that match: ``action`` is hold, release, retry, bounce or drop.

    Without anything to select by, ``everything`` has to be True. ``dry_run``: only count. ``reason`` stands in the DSN
    of a bounce, and in the log. Gives how many messages and recipients it was, and how many of them could not be
    touched since they are being delivered right now; with a ``cursor`` it has to be asked again for the rest.
    """

    admin = True
    attributed = True
    arguments: ClassVar[Any] = [
        (b"action", amp.Unicode()),
        *SELECTION,
        (b"everything", amp.Boolean()),
        (b"dry_run", amp.Boolean()),
        _text("reason"),
        _text("after"),
    ]
    response: ClassVar[Any] = [
        (b"messages", amp.Integer()),
        (b"recipients", amp.Integer()),
        (b"active", amp.Integer()),
        _text("cursor"),
    ]


class QueueStats(ControlCommand):
    """How much waits, by state; for how long; and what of."""

    response: ClassVar[Any] = [(b"stats", Json())]


class QueueShape(ControlCommand):
    """Recipients by domain and age: ``ages`` are the upper bounds in seconds, each row has a domain and a count for
    each of them and one for what is older."""

    arguments: ClassVar[Any] = [*SELECTION]
    response: ClassVar[Any] = [(b"ages", Json()), (b"rows", Json())]


class Why(ControlCommand):
    """The story of one message: how it came, and for each recipient its attempts and next attempt.

    ``ways``: how it is with the way to each domain of the page's recipients, as many as fit.
    """

    arguments: ClassVar[Any] = [(b"id", amp.Unicode()), _text("after")]
    response: ClassVar[Any] = [(b"message", Json()), (b"ways", Json()), *_PAGE]


# The DNS and routes.


class DnsList(ControlCommand):
    """What is remembered of the DNS, and what overrides it."""

    arguments: ClassVar[Any] = [_text("after")]
    response: ClassVar[Any] = _PAGE


class DnsLookup(ControlCommand):
    """Look up a name: ``type`` is A, AAAA or MX. ``refresh``: forget what is remembered of it first."""

    arguments: ClassVar[Any] = [(b"name", amp.Unicode()), (b"type", amp.Unicode()), (b"refresh", amp.Boolean())]
    response: ClassVar[Any] = [(b"answer", Json())]


class DnsClear(ControlCommand):
    """Forget what is remembered of a name, or of all. Gives how many answers that were."""

    admin = True
    arguments: ClassVar[Any] = [_text("name")]
    response: ClassVar[Any] = [(b"cleared", amp.Integer())]


class DnsOverride(ControlCommand):
    """Have a name mean these addresses until the server ends; with none, what it meant before."""

    admin = True
    arguments: ClassVar[Any] = [(b"domain", amp.Unicode()), (b"addresses", Json())]
    response: ClassVar[Any] = [(b"overrides", amp.Integer())]


class RouteTest(ControlCommand):
    """Which way mail for an address would go: nothing is sent."""

    arguments: ClassVar[Any] = [(b"address", amp.Unicode())]
    response: ClassVar[Any] = [(b"route", Json())]


# Those who log in.


class AuthLocks(ControlCommand):
    """Who is locked out, and until when."""

    arguments: ClassVar[Any] = [_text("after")]
    response: ClassVar[Any] = _PAGE


class AuthUnlock(ControlCommand):
    """End the locks of a user, of an address, or of that pair. Gives how many that were, and the first of them."""

    admin = True
    arguments: ClassVar[Any] = [_text("user"), _text("address")]
    response: ClassVar[Any] = [(b"count", amp.Integer()), (b"unlocked", Json())]


class AuthTest(ControlCommand):
    """Would this user be let in, and what as? It counts as no guess, and no lock stands in its way.

    ``outcome``: let in, refused or unavailable.
    """

    admin = True
    secrets = frozenset({"password"})
    arguments: ClassVar[Any] = [(b"user", amp.Unicode()), (b"password", amp.Unicode())]
    response: ClassVar[Any] = [(b"outcome", amp.Unicode()), (b"account", Json())]


# The server.


class Ping(ControlCommand):
    """Is it there? Gives its version and process id."""

    response: ClassVar[Any] = [(b"version", amp.Unicode()), (b"pid", amp.Integer())]


class Status(ControlCommand):
    """How the server is: its listeners, sessions, queue, directory, certificates and troubles."""

    response: ClassVar[Any] = [(b"status", Json())]


class Reload(ControlCommand):
    """Read the configuration again. Gives which settings have changed, which of them take a restart, the paths of
    ``certificates`` that are taken, and ``warnings`` of the files.

    ``outcome``: taken, or refused for the ``problems``, each with a file, a key and a reason: then nothing has changed.
    """

    admin = True
    response: ClassVar[Any] = [
        (b"outcome", amp.Unicode()),
        (b"changed", Json()),
        (b"restart", Json()),
        (b"certificates", Json()),
        (b"warnings", Json()),
        (b"problems", Json()),
    ]


class Drain(ControlCommand):
    """Take no new mail, or (``drain`` False) take some again; what waits is delivered in either case."""

    admin = True
    arguments: ClassVar[Any] = [(b"drain", amp.Boolean())]
    response: ClassVar[Any] = [(b"phase", amp.Unicode())]


class SetLogLevel(ControlCommand):
    """From which level on events are logged: debug, info, warn or error. Gives the one before."""

    admin = True
    arguments: ClassVar[Any] = [(b"level", amp.Unicode())]
    response: ClassVar[Any] = [(b"before", amp.Unicode())]
