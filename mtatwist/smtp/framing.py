"""Where a command line ends: at CRLF and nowhere else (RFC 5321 §2.3.8)."""

from __future__ import annotations

from mtatwist.smtp.reply import BARE_LINE_END, LINE_TOO_LONG, Reply


class LineFramer:
    """Cuts command lines out of a buffer; what is too long is dropped to its end, and refused once."""

    def __init__(self, limit: int) -> None:
        """``limit``: octets a line may have, CRLF included."""
        self._limit = limit
        self._dropping = False

    def cut(self, buffer: bytes, start: int) -> tuple[bytes | Reply | None, int]:
        """The next line of ``buffer`` from ``start`` (without its CRLF), or the Reply that refuses it, or None
        when it is not complete; and where to go on. Up to one CR is left in the buffer."""
        end = buffer.find(b"\n", start)
        if end < 0:
            if self._dropping or len(buffer) - start > self._limit:
                self._dropping = True
                # A trailing CR may be half of the line end.
                return None, len(buffer) - buffer.endswith(b"\r")
            return None, start
        if self._dropping or end + 1 - start > self._limit:
            self._dropping = False
            return LINE_TOO_LONG, end + 1
        if end == start or buffer[end - 1] != 13:
            return BARE_LINE_END, end + 1
        return buffer[start : end - 1], end + 1
