"""The memory of an idle session: ``python -m tests.bench.idle_sessions [COUNT]``. Alone, without a peer to compare."""

from __future__ import annotations

import resource
import ssl
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rigs import certificates
from rigs.idle import octets_a_session
from rigs.mta import Mta, relaying_to

TARGET = 40_000
"""Octets that a session in clear may cost."""


def main(count: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    with tempfile.TemporaryDirectory() as name:
        files = certificates.make(Path(name))
        config = relaying_to(
            2525,
            listen=[
                {"endpoint": f"tcp:0:interface=127.0.0.{number}", "role": "mx", "tls": tls}
                for number, tls in enumerate(("none", "implicit"), 1)
            ],
            tls={"certificate": str(files.certificate), "private_key": str(files.key)},
            limits={"connections": count + 100, "connections_per_address": count + 100},
        )
        context = ssl.create_default_context(cafile=str(files.authority))
        with Mta(Path(name), config) as mta:
            plain = octets_a_session(mta, 0, count, None)
        with mta:
            secured = octets_a_session(mta, 1, count, context)
    print(f"{count} idle sessions: {plain / 1000:.1f} kB each in clear, {secured / 1000:.1f} kB each with TLS")
    return 0 if plain <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
