"""How much each account has sent, and whether it may send more ([submission] messages and recipients)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mtatwist.smtp.reply import Reply
from mtatwist.store import usage as kept
from mtatwist.store.usage import KeptWindow
from mtatwist.validators.window import Limit, Window, newest

if TYPE_CHECKING:
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.transaction import Session

_log = Logger()

ACCOUNTS = 20_000
"""Accounts whose windows are kept. When there are more, those that have sent nothing for longest begin anew."""

SAVE_SECONDS = 5.0
"""Time between two visits to the database. A crash forgets what was sent since the last one; a stop does not."""


class Sending:
    """A message on its way in. It counts from now on: for good once it is accepted, and no more once it is dropped."""

    def __init__(self, usage: Usage, session: Session, recipients: int) -> None:
        self._usage = usage
        self._session = session
        # The session may end, and forget it, while the message is being stored.
        self._account = session.user
        self._recipients = recipients
        self._open = True
        usage.hold(self._account, 1, recipients)

    def accepted(self) -> None:
        """It is on stable storage; even one that had been dropped before counts then."""
        self.dropped()
        self._usage.count(self._account, self._recipients, self._session)

    def dropped(self) -> None:
        """It was refused, or its session ended."""
        if self._open:
            self._open = False
            self._usage.hold(self._account, -1, -self._recipients)


class Usage:
    """The windows of all accounts, in memory; the database hears of changes a little later, and nobody waits for it."""

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        now: Callable[[], float],
        clock: IReactorTime,
        submit: Callable[[Any, Any], Deferred[Any]],
        metrics: Instruments,
        most: int = ACCOUNTS,
    ) -> None:
        """``now`` is the queue's time; ``submit`` hands a job to the database's writer."""
        self._limits = limits
        self._now = now
        self._clock = clock
        self._submit = submit
        self._metrics = metrics
        self._most = most
        # The account that sent last comes last.
        self._windows: dict[str, list[Window]] = {}
        self._held: dict[str, tuple[int, int]] = {}
        self._changed: set[str] = set()
        self._timer: IDelayedCall | None = None
        self._running = False

    def start(self) -> None:
        """Have the database tell what an earlier run counted."""
        self._running = True
        self._submit(kept.load, None).addCallbacks(self._loaded, self._not_loaded)

    def stop(self) -> None:
        """Hand over what the database does not know yet: the writer must be stopped after this."""
        self._running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._save()

    def limit(self, limits: Sequence[Limit]) -> None:
        """From now on these limits hold. What was counted for windows of the same length counts on."""
        if limits == self._limits:
            return
        self._limits = limits
        now = self._now()
        for account, before in list(self._windows.items()):
            self._windows[account] = self._as_kept([window.kept() for window in before], self._fresh(), now)
            self._change(account)

    def refusal(self, session: Session, recipients: int) -> Reply | None:
        """Why one more message, to so many recipients, is too much for now; None: it is not. Somebody has logged in."""
        account = session.user
        windows = self._windows.get(account)
        now = self._now()
        messages, others = self._held.get(account, (0, 0))
        for position, limit in enumerate(self._limits):
            wanted = messages + 1 if limit.what == "messages" else others + recipients
            room = limit.most if windows is None else windows[position].room(now)
            if wanted > room:
                return self._over(session, limit)
        return None

    def _over(self, session: Session, limit: Limit) -> Reply:
        self._metrics.submission_limited.value += 1
        _log.info(
            "submission_limited",
            session=session.id,
            peer=session.peer,
            user=session.user,
            limit=f"{limit.words} {limit.what}",
        )
        return Reply(450, "4.7.1", f"Too many {limit.what} for now: you may send {limit.words}, try again later")

    def begin(self, session: Session, recipients: int) -> Sending | Reply:
        """A message's data is about to come: count it with those that others of the same account are sending."""
        return self.refusal(session, recipients) or Sending(self, session, recipients)

    def hold(self, account: str, messages: int, recipients: int) -> None:
        """So many more (or less) are on their way."""
        before = self._held.pop(account, (0, 0))
        held = (before[0] + messages, before[1] + recipients)
        if held[0]:
            self._held[account] = held

    def count(self, account: str, recipients: int, session: Session) -> None:
        """One message more was sent, in that session."""
        if not self._limits:
            return
        now = self._now()
        windows = self._windows.pop(account, []) or self._fresh()
        self._windows[account] = windows
        for window in windows:
            if window.add(now, 1 if window.limit.what == "messages" else recipients):
                self._metrics.submission_limits_near.value += 1
                _log.warn(
                    "submission_limit_near",
                    session=session.id,
                    peer=session.peer,
                    user=account,
                    limit=f"{window.limit.words} {window.limit.what}",
                    sent=window.total(now),
                )
        self._forget(now)
        self._change(account)

    def _forget(self, now: float) -> None:
        """Those who have sent nothing for as long as the windows are, or for longest when there are too many."""
        # Two are enough where one is added at a time.
        for account in list(islice(self._windows, 2)):
            if len(self._windows) <= self._most and any(each.total(now) for each in self._windows[account]):
                break
            del self._windows[account]
            self._change(account)

    def _change(self, account: str) -> None:
        self._changed.add(account)
        if self._timer is None and self._running:
            self._timer = self._clock.callLater(SAVE_SECONDS, self._save)

    def _save(self) -> None:
        self._timer = None
        changed, self._changed = self._changed, set()
        rows: dict[str, Any] = {}
        for account in changed:
            windows = self._windows.get(account)
            rows[account] = None if windows is None else [window.kept() for window in windows]

        def not_saved(_: object) -> None:
            """The writer has said so; the next visit tells it anew."""
            for account in changed:
                self._change(account)

        self._submit(kept.save, rows).addErrback(not_saved)

    def _loaded(self, rows: dict[str, list[KeptWindow]]) -> None:
        now = self._now()
        since, self._windows = self._windows, {}
        for account, windows in sorted(rows.items(), key=lambda row: max(map(newest, row[1]), default=0.0)):
            mine = self._as_kept(windows, since.pop(account, []) or self._fresh(), now)
            if any(window.total(now) for window in mine):
                self._windows[account] = mine
            else:
                self._change(account)
        self._windows.update(since)

    def _fresh(self) -> list[Window]:
        return [Window(limit) for limit in self._limits]

    @staticmethod
    def _as_kept(kept: Sequence[KeptWindow], windows: list[Window], now: float) -> list[Window]:
        """These windows, with what was kept of others of the same length."""
        for window in windows:
            for each in kept:
                if (each.what, each.seconds) == (window.limit.what, window.limit.seconds):
                    window.restore(each, now)
        return windows

    def _not_loaded(self, failure: Any) -> None:
        _log.error("submission_usage_not_loaded", error=failure.getErrorMessage())
