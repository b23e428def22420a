"""Which account is behind a name, where it has several: what is tried under any of them counts together."""

from __future__ import annotations

LIMIT = 10_000
"""Names that are known: those not used for longest are forgotten. Only names that somebody has are learned."""


class Names:
    """Counted names (see auth.client) of accounts, by other counted names of theirs."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        # The one not used for longest comes first.
        self._accounts: dict[str, str] = {}

    def account(self, name: str) -> str:
        """Whose name it is, as far as that is known."""
        account = self._accounts.pop(name, None)
        if account is None:
            return name
        self._accounts[name] = account
        return account

    def learn(self, name: str, account: str) -> None:
        """It is this account's."""
        self._accounts.pop(name, None)
        if name != account:
            self._accounts[name] = account
        if len(self._accounts) > self._limit:
            del self._accounts[next(iter(self._accounts))]
