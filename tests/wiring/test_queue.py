"""The verbs of the queue as the server answers them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from control.visitor import Site
from twisted.internet.task import Clock

from mtatwist.control.commands import QueueChange, Unavailable
from mtatwist.wiring.queue import make_queue_verbs


def test_a_server_that_stops_changes_nothing_more() -> None:
    relay = SimpleNamespace(running=0, next_hop=str)
    server: Any = SimpleNamespace(spool=None, relay=relay, queue_time=SimpleNamespace(now=float, shown=float))
    visitor = Site(make_queue_verbs(server, Clock()).responders()).visitor()
    visitor.hello()
    answer = visitor.ask(QueueChange, action="hold", everything=True, dry_run=False)
    assert answer == (Unavailable, "the server is stopping")
