"""testssl.sh, a scanner of TLS servers from Debian: what it says that is not praise."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from rigs.processes import need

#: Protocols, the certificate and tickets, renegotiation, compression. The ciphers take the longest, and openssl tries
#: them sooner; the rest looks for holes in old libraries.
CHOSEN = ("-p", "-S", "-R", "-C")


class Scan:
    """One run, as a process of its own: several go on at the same time."""

    def __init__(
        self, directory: Path, port: int, name: str, authority: Path, *, starttls: bool, checks: tuple[str, ...]
    ) -> None:
        """``name``: what the server's certificate is for; ``checks``: none for all of them."""
        need("testssl", "openssl")
        self._result = directory / f"{port}.json"
        self._output = directory / f"{port}.txt"
        command = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none"]
        command += ["--add-ca", str(authority), "--ip", "127.0.0.1", "--jsonfile", str(self._result), *checks]
        command += [*(["-t", "smtp"] if starttls else []), f"{name}:{port}"]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TERM": "dumb"},
                start_new_session=True,
            )

    def findings(self, seconds: float) -> list[dict[str, Any]]:
        """All that it has found, praise included, once it is through."""
        try:
            self._process.wait(seconds)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, 9)
                self._process.wait()
        found: list[dict[str, Any]] = json.loads(self._result.read_text())
        assert len(found) > 10, self._output.read_text()
        return found
