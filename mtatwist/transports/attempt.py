"""The outcome of each recipient of one transaction, as replies come in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mtatwist.envelope import Deferral, Delivered, Failure, Handed, Outcome
from mtatwist.smtp.reply import Reply


class Attempt:
    """A recipient without an outcome is open. ``begun``: something was said of this message; ``answered``: and heard.

    ``uncertain``: the message is out, and the server may have it whatever we hear from now on.
    """

    def __init__(self, host: str, count: int, handed: Handed, tls: str) -> None:
        """``host``: who the replies are from; ``handed``: what a positive one means; ``tls``: how it went."""
        self._host = host
        self._handed = handed
        self._tls = tls
        self._outcomes: list[Outcome | None] = [None] * count
        self.begun = False
        self.answered = False
        self.uncertain = False

    @property
    def open(self) -> Sequence[int]:
        """The recipients for whom the message is still to be sent."""
        return [index for index, outcome in enumerate(self._outcomes) if outcome is None]

    def rcpt(self, index: int, reply: Reply) -> None:
        """The reply to RCPT: a positive one leaves the recipient open."""
        if not reply.positive:
            # RFC 5321 §4.5.3.1.10: 552 for "too many recipients" means 452.
            if reply.code == 552 and reply.enhanced in ("", "5.5.3"):
                reply = Reply(452, "4.5.3", reply.text)
            self.settle([index], reply)

    def settle(self, group: Iterable[int], reply: Reply, *, ours: bool = False) -> None:
        """The outcome of some. ``ours``: nobody said so but ourselves."""
        outcome = self._outcome(reply, "" if ours else self._host)
        for index in group:
            self._outcomes[index] = outcome

    def all_open(self, reply: Reply, *, ours: bool = False) -> None:
        """The outcome of all that are still open."""
        self.settle(self.open, reply, ours=ours)

    def outcomes(self) -> list[Outcome]:
        """The outcome of each."""
        return [outcome or Deferral(Reply(451, "4.3.0", "No outcome")) for outcome in self._outcomes]

    def _outcome(self, reply: Reply, host: str) -> Outcome:
        if 300 <= reply.code < 400:
            return Deferral(Reply(451, "4.5.0", f"Unexpected reply from {self._host}: {reply}"))
        if reply.positive:
            return Delivered(reply, host, self._handed, self._tls)
        return (Failure if reply.permanent else Deferral)(reply, host, self._tls)
