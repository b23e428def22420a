"""What the server says at its start to somebody who tries it without a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mtatwist.config import Config
from mtatwist.receive.listener import Listener


def hint(config: Config, listeners: Sequence[Listener]) -> str:
    """What it does, and what to try next."""
    facts, submission = listeners[0].facts(), listeners[1].facts()
    return (
        f"No --config: mail for anyone at localhost, from {facts['host']}:{facts['port']}, goes to the Maildirs under"
        f" {config.server.data_dir}/maildir. Try: swaks --server {facts['host']}:{facts['port']} --to you@localhost;"
        f" then look there. To send as a user: mtactl users add --file {config.auth.file} you, and swaks --server"
        f" {submission['host']}:{submission['port']} --tls --auth-user you --from you@localhost --to anybody@localhost."
        " Next: mtactl config describe, and twistd -n mta --config FILE"
    )
