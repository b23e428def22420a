"""Writing at once: what fits into the socket's buffer needs no detour through the reactor.

``transport.write()`` arms the poller, waits for the next round, sends, and disarms the poller: two system calls and
a dispatch more than the send itself. A mail session writes small replies to a peer that waits for them.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


class Output:
    """Writes to one transport, in order. Everything written to it must come through here."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        # Below TLS, and for transports that are no sockets, only the transport knows what leaves when.
        self._prompt = isinstance(transport, Connection) and not transport.TLS

    def write(self, data: bytes) -> None:
        """Send now what the socket takes; the transport sends the rest, and from then on everything."""
        if self._prompt and self._transport.connected:
            sent = self._transport.writeSomeData(data)
            if sent == len(data):
                return
            self._prompt = False
            # Not a number: the connection is lost, which the transport finds out for itself.
            if isinstance(sent, int):
                data = data[sent:]
        self._transport.write(data)

    def through_transport(self) -> None:
        """From now on the transport does it all (TLS begins, or the connection is being closed)."""
        self._prompt = False
