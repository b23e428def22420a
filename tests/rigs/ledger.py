"""A load generator that writes down every promise it was given, and the account at the end.

A message is *acknowledged* when its end of data got a 250. From then on each of its recipients must
arrive. One without an answer may arrive or not; one that arrives twice is counted.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Self

from rigs.client import Address, Client
from rigs.sink import LEDGER_FIELD, Arrival

_QUEUED_AS = re.compile(r"\b([0-9A-F]{8,})\b")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message as it was given to the server."""

    ledger_id: str
    forward_paths: tuple[str, ...]
    digest: str
    queue_id: str = ""


@dataclass(slots=True)
class Account:
    """What became of the promises, counted by message and recipient (queue ids: by message)."""

    acknowledged: int = 0
    received: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)
    duplicates: int = 0
    delivered_unacknowledged: int = 0
    unknown: int = 0
    spoiled: int = 0
    other_queue_id: int = 0
    reused_queue_ids: int = 0

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged}, received {self.received}, lost {len(self.lost)}, "
            f"duplicates {self.duplicates}, unacknowledged but delivered "
            f"{self.delivered_unacknowledged}, body mismatches {self.spoiled}, "
            f"queue id mismatches {self.other_queue_id}, queue ids given twice "
            f"{self.reused_queue_ids}, never sent by us {self.unknown}"
        )


class Ledger:
    """Thread-safe; ``offered`` are all messages tried, ``acknowledged`` those with a 250."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.offered: dict[str, Entry] = {}
        self.acknowledged: dict[str, Entry] = {}

    def offer(self, entry: Entry) -> None:
        with self.changed:
            self.offered[entry.ledger_id] = entry

    def acknowledge(self, entry: Entry) -> None:
        with self.changed:
            self.acknowledged[entry.ledger_id] = entry
            self.changed.notify_all()

    def wait_for(self, acknowledged: int, seconds: float) -> None:
        """Until so many messages are acknowledged."""
        with self.changed:
            enough = self.changed.wait_for(lambda: len(self.acknowledged) >= acknowledged, seconds)
        if not enough:
            raise TimeoutError(f"{len(self.acknowledged)} of {acknowledged} acknowledged")

    def account(self, arrivals: Iterable[Arrival]) -> Account:
        """Compare with what arrived."""
        came: Counter[tuple[str, str]] = Counter()
        account = Account()
        for arrival in arrivals:
            offered = self.offered.get(arrival.ledger_id)
            if offered is None:
                account.unknown += 1
                continue
            came.update((arrival.ledger_id, path) for path in arrival.forward_paths)
            account.spoiled += arrival.digest != offered.digest
            promised = self.acknowledged.get(arrival.ledger_id)
            account.other_queue_id += promised is not None and promised.queue_id != arrival.queue_id
        due = {(x.ledger_id, path) for x in self.acknowledged.values() for path in x.forward_paths}
        ids = Counter(x.queue_id for x in self.acknowledged.values())
        account.acknowledged = len(due)
        account.received = len(came)
        account.lost = sorted(due - came.keys())
        account.duplicates = sum(came.values()) - len(came)
        account.delivered_unacknowledged = len(came.keys() - due)
        account.reused_queue_ids = sum(ids.values()) - len(ids)
        return account


def message(ledger_id: str, chance: random.Random, large_share: float, large: int) -> tuple[bytes, tuple[str, ...]]:
    """A message with its id in header and body, and its forward paths."""
    size = large if chance.random() < large_share else chance.randrange(200, 6000)
    paths = tuple(f"r{n}.{ledger_id}@sink.test" for n in range(chance.choice((1, 1, 1, 1, 3))))
    line = chance.randbytes(36).hex().encode() + b"\r\n"
    head = (
        LEDGER_FIELD + b": " + ledger_id.encode() + b"\r\n"
        b"From: <sender@client.test>\r\nSubject: ledger\r\n\r\n"
        b"This is " + ledger_id.encode() + b".\r\n.\r\n..dots\r\n"
    )
    return head + line * (size // len(line)) + b"the end\r\n", paths


class Load:
    """``sessions`` threads that send until the ``with`` is left; a server that is gone is waited for."""

    def __init__(
        self,
        ledger: Ledger,
        sessions: int = 16,
        *,
        seed: int = 0,
        large_share: float = 0.2,
        large: int = 300_000,
    ) -> None:
        self.ledger = ledger
        self.trouble: list[str] = []
        self._large_share = large_share
        self._large = large
        self._ended = False
        self._address: Address | None = None
        self._generation = 0
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._send, args=(f"{seed}-{number}",), daemon=True) for number in range(sessions)
        ]

    def point_at(self, address: Address | None) -> None:
        """The server to use from now on; None: there is none, wait for one."""
        with self._changed:
            self._address = address
            self._generation += 1
            self._changed.notify_all()

    def _server(self, known: int) -> tuple[int, Address] | None:
        """A server newer than the one ``known`` to be gone; None: it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._address is not None and self._generation > known))
            if self._ended or self._address is None:
                return None
            return self._generation, self._address

    def _send(self, name: str) -> None:
        chance = random.Random(name)
        ids = (f"{name}-{number}" for number in range(1, 1 << 60))
        generation = 0
        while (server := self._server(generation)) is not None:
            generation, address = server
            try:
                with Client(address) as client:
                    client.ehlo()
                    self._session(client, ids, chance)
            except OSError:
                continue  # The server was killed: nothing is promised for what was under way.
            except Exception as error:
                self.trouble.append(f"{type(error).__name__}: {error}")
                return

    def _session(self, client: Client, ids: Iterator[str], chance: random.Random) -> None:
        while not self._ended:
            ledger_id = next(ids)
            content, paths = message(ledger_id, chance, self._large_share, self._large)
            entry = Entry(ledger_id, paths, hashlib.sha256(content).hexdigest())
            self.ledger.offer(entry)
            reply = client.transaction(f"bounces+{ledger_id}@client.test", paths, content)
            if reply.code != 250:
                raise AssertionError(f"the end of data was answered {reply}")
            named = _QUEUED_AS.search(reply.text)
            queue_id = named[1] if named else ""
            self.ledger.acknowledge(Entry(ledger_id, paths, entry.digest, queue_id))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self.trouble.append(f"{thread.name} does not end")
