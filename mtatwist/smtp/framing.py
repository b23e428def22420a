"""Where a command line ends: at CRLF and nowhere else (RFC 5321 §2.3.8)."""

from __future__ import annotations

from mtatwist.smtp.reply import BARE_LINE_END, LINE_TOO_LONG, Reply


class LineFramer:
    """Cuts command lines out of a buffer; one that can't be taken is refused once, and skipped to its CRLF."""

    def __init__(self, limit: int) -> None:
        """``limit``: octets a line may have, CRLF included; it may be changed between lines."""
        self.limit = limit
        self._skipping = False

    def cut(self, buffer: bytes, start: int) -> tuple[bytes | Reply | None, int]:
        """The next line of ``buffer`` from ``start`` (without its CRLF), or the Reply that refuses it, or None
        when it is not complete; and where to go on. Up to one CR is left in the buffer."""
        if not self._skipping:
            end = buffer.find(b"\n", start)
            if start < end < start + self.limit and buffer[end - 1] == 13:
                return buffer[start : end - 1], end + 1
        return self._cut_bad(buffer, start)

    def _cut_bad(self, buffer: bytes, start: int) -> tuple[bytes | Reply | None, int]:
        """The same, for what is not simply a good line."""
        if self._skipping:
            end = buffer.find(b"\r\n", start)
            if end < 0:
                return None, self._all_but_cr(buffer)
            self._skipping = False
            start = end + 2
        end = buffer.find(b"\n", start)
        if (end + 1 if end >= 0 else len(buffer)) - start > self.limit:
            self._skipping = True
            return LINE_TOO_LONG, end - 1 if end >= 0 else self._all_but_cr(buffer)
        if end < 0:
            return None, start
        if end == start or buffer[end - 1] != 13:
            # Said at once, since a peer that never sends CRLF would wait; what stands behind it is no command.
            self._skipping = True
            return BARE_LINE_END, end + 1
        return buffer[start : end - 1], end + 1

    @staticmethod
    def _all_but_cr(buffer: bytes) -> int:
        """The end of ``buffer``, but before a trailing CR: it may be half of the line end."""
        return len(buffer) - buffer.endswith(b"\r")
