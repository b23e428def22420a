"""A queue with some mail in it behind a control socket in memory, and mtactl that talks to it."""

from __future__ import annotations

import json
import time
from typing import Any

from click.testing import CliRunner, Result
from control.visitor import Site, Visitor
from rigs.pump import Pump

from mtatwist.control.callers import Callers
from mtatwist.control.cli import main
from mtatwist.control.client import Client
from mtatwist.control.commands import ControlCommand
from mtatwist.control.queue import QueueVerbs
from mtatwist.envelope import Envelope, Message, Recipient, Settled, State
from mtatwist.relay.administration import Changed
from mtatwist.relay.route import BY_MX
from mtatwist.relay.standing import Standing
from mtatwist.smtp.reply import Reply
from mtatwist.spool.sqlite import SqliteSpool

BUSY = Reply(450, "4.2.1", "busy")

#: How far the queue's time is ahead of the machine's.
AHEAD = 10_000.0


class Changes:
    """What somebody had done to the queue; each call gives the next of ``answers``, and those before the last have more
    to come."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers: list[Changed | Exception] = []

    async def change(self, action: str, selection: Any, **options: Any) -> Changed:
        self.asked.append({"action": action, "selection": selection, **options})
        answer = self.answers.pop(0) if self.answers else Changed(0, 0, 0, None)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Lab:
    """``standings``: how it is with the way to a domain, where it is not plain MX."""

    def __init__(self, spool: SqliteSpool, pump: Pump, callers: Callers | None = None) -> None:
        self.spool = spool
        self.pump = pump
        self.changes = Changes()
        self.standings: dict[str, Standing] = {}
        self.asked = 0
        self.verbs = QueueVerbs(
            spool,
            self.changes.change,
            next_hop=lambda domain: self.standing(domain).next_hop,
            way=lambda domain: self.standing(domain).facts(),
            queue_time=self.now,
            shown=lambda at: at - AHEAD,
        )
        self.site = Site(self.verbs.responders(), callers)

    def now(self) -> float:
        """The queue's time."""
        return time.time() + AHEAD

    def standing(self, domain: str) -> Standing:
        return self.standings.get(domain) or Standing(BY_MX, domain)

    # What is in the queue.

    def store(
        self, *addresses: str, body: bytes = b"Subject: x\r\n\r\nhello\r\n", age: float = 60, **facts: Any
    ) -> Message:
        """A message that came ``age`` seconds ago, and has been claimed by nobody since."""
        recipients = [Recipient(index, each, each.rpartition("@")[2]) for index, each in enumerate(addresses)]
        envelope = Envelope(
            facts.pop("reverse_path", "me@here.test"), recipients, received_at=self.now() - age, **facts
        )
        writer = self.spool.create(envelope)
        pause = writer.write(body)
        if pause is not None:
            self.pump.wait(pause)
        message: Message = self.pump.wait(writer.commit())
        self.pump.wait(self.spool.release([(message.number, r.index, self.now()) for r in recipients]))
        return message

    def claim(self, *domains: str) -> list[Message]:
        """They are being delivered."""
        return self.pump.wait(self.spool.claim_due(self.now() + 1, [(domain, 1000) for domain in domains]))

    def tried(
        self,
        message: Message,
        index: int,
        state: State,
        reply: Reply = BUSY,
        ago: float = 30,
        due_in: float = 600,
        tls: str = "",
    ) -> None:
        """A recipient was tried."""
        (claimed,) = (m for m in self.claim(message.envelope.recipients[index].domain) if m.number == message.number)
        at = self.now() - ago
        due = self.now() + due_in
        result = Settled(claimed.number, index, state, reply, "mx.far.test", at, due, tls=tls)
        self.pump.wait(self.spool.settle([result], []))

    # mtactl.

    def ask(self, visitor: Visitor, command: type[ControlCommand], **arguments: Any) -> Any:
        """See Visitor.ask(): the spool answers from a thread."""
        self.asked += 1
        asked = visitor.send(command, **arguments)
        self.pump.until(lambda: visitor.answer(command, asked) is not None)
        return visitor.answer(command, asked)

    def mtactl(self, *arguments: str, **options: Any) -> Result:
        """Run it."""
        return CliRunner().invoke(main, ["--socket", "here", *arguments], **options)

    def said(self, *arguments: str) -> list[dict[str, Any]]:
        """What it says in JSON, all being well."""
        result = self.mtactl("--json", *arguments)
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


def connected(lab: Lab) -> type[Client]:
    """mtactl's end, with nothing of a socket in it."""

    class Wireless(Client):
        def __init__(self, path: str, token: str | None = None) -> None:
            self.visitor = lab.site.visitor()
            answer = self.visitor.hello(token)
            if isinstance(answer, tuple):
                raise answer[0](answer[1])
            self.role = answer["role"]

        def close(self) -> None:
            self.visitor.leave()

        def ask(self, command: type[ControlCommand], **arguments: Any) -> dict[str, Any]:
            answer = lab.ask(self.visitor, command, **arguments)
            if isinstance(answer, tuple):
                raise answer[0](answer[1])
            return dict(answer)

    return Wireless
