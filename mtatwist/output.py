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
        prompt = isinstance(transport, Connection) and not transport.TLS
        self._send = transport.getHandle().send if prompt else None

    def write(self, data: bytes) -> None:
        """Send now what the socket takes; the transport sends the rest, and from then on everything."""
        if self._send is not None and self._transport.connected:
            try:
                sent = self._send(data)
            except OSError:
                # Full, or lost: the transport finds out for itself.
                sent = 0
            if sent == len(data):
                return
            self._send = None
            data = data[sent:]
        self._transport.write(data)

    def through_transport(self) -> None:
        """From now on the transport does it all (TLS begins, or the connection is being closed)."""
        self._send = None
