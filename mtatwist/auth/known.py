"""From where accounts have logged in: an account's lock spares these networks. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence

from mtatwist.auth.client import Client
from mtatwist.store.lockouts import Known

KNOWN_SECONDS = 30 * 86400.0
"""How long a login makes its network known."""

LIMIT = 100_000
"""Networks known in all: of those accounts that have not logged in for longest some are forgotten."""

LIMIT_PER_ACCOUNT = 256
"""Networks known of one account: one with many addresses must not drive out what is known of others."""

SAVED_SECONDS = 3600.0
"""A login is saved when the last one saved from there is older: a busy client costs one write an hour."""


class KnownNetworks:
    """When each account has logged in from where, last."""

    def __init__(self, limit: int = LIMIT, per_account: int = LIMIT_PER_ACCOUNT) -> None:
        self._limit = limit
        self._per_account = per_account
        # Whose login is the longest ago comes first, in both.
        self._accounts: dict[str, dict[str, float]] = {}
        self._count = 0
        self._saved: dict[Client, float] = {}
        self._changed: dict[Client, None] = {}

    def has(self, client: Client, now: float) -> bool:
        """Has the account logged in from there?"""
        at = self._accounts.get(client.account, {}).get(client.network)
        return at is not None and at > now - KNOWN_SECONDS

    def add(self, client: Client, now: float) -> None:
        """It has."""
        self._put(client, now)
        if self._saved.get(client, float("-inf")) <= now - SAVED_SECONDS:
            self._saved[client] = now
            self._changed[client] = None

    def sweep(self, now: float) -> None:
        """Forget the oldest, if that was too long ago."""
        account = next(iter(self._accounts), None)
        if account is not None:
            network, at = next(iter(self._accounts[account].items()))
            if at <= now - KNOWN_SECONDS:
                self._remove(Client(account, network))

    def restore(self, rows: Sequence[Known], now: float) -> None:
        """Take in what an earlier run kept: the oldest first."""
        for account, network, at in rows:
            client = Client(account, network)
            self._put(client, min(at, now))
            self._saved[client] = min(at, now)

    @property
    def changed(self) -> bool:
        """Is there something to be saved?"""
        return bool(self._changed)

    def take_changes(self) -> tuple[list[Known], list[Client]]:
        """What is known since the last time, and what is no more."""
        known, strange = [], []
        for client in self._changed:
            at = self._accounts.get(client.account, {}).get(client.network)
            if at is None:
                strange.append(client)
            else:
                known.append(Known(*client, at))
        self._changed.clear()
        return known, strange

    def give_back(self, known: Sequence[Known], strange: Sequence[tuple[str, str]]) -> None:
        """These could not be saved."""
        for client in [*(Client(each.account, each.network) for each in known), *(Client(*each) for each in strange)]:
            if len(self._changed) < self._limit:
                self._changed[client] = None

    def _put(self, client: Client, at: float) -> None:
        networks = self._accounts.pop(client.account, {})
        self._count += networks.pop(client.network, None) is None
        networks[client.network] = at
        self._accounts[client.account] = networks
        if len(networks) > self._per_account:
            self._remove(Client(client.account, next(iter(networks))))
        while self._count > self._limit:
            account, oldest = next(iter(self._accounts.items()))
            self._remove(Client(account, next(iter(oldest))))

    def _remove(self, client: Client) -> None:
        networks = self._accounts[client.account]
        del networks[client.network]
        if not networks:
            del self._accounts[client.account]
        self._count -= 1
        self._saved.pop(client, None)
        self._changed[client] = None
