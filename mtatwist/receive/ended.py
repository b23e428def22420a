"""What the log says of a session when it is over."""

from __future__ import annotations

from mtatwist.log import EventLogger
from mtatwist.transaction import Session

_log = EventLogger()


def log_end(session: Session, *, refused: int, seconds: float) -> None:
    """``refused`` counts commands. Of a session with mail the events about that tell more: this is for debugging."""
    say = _log.debug if session.accepted else _log.info
    say(
        "session_ended",
        session=session.id,
        role=session.role,
        peer=session.peer,
        helo=session.helo,
        tls=session.tls,
        accepted=session.accepted,
        refused=refused,
        seconds=round(seconds, 3),
    )
