"""A DNS of our own: zones on BIND, two of them signed, and an Unbound that validates. All is on loopback.

``example.test`` is signed, ``bogus.test`` is signed and then spoiled, ``plain.test`` is not signed; nobody has
``lame.test``, though Unbound is told that BIND does; ``known.test`` is Unbound's alone. Hosts have addresses 127.0.0.2
and up.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from pathlib import Path
from typing import Self

import dns.message
import dns.query
from rigs.processes import Child, free_port, need, program, wait_until

_HEAD = """\
$TTL 300
@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 600 86400 60
@ NS ns.{zone}.
ns A 127.0.0.1
"""

_RECORDS = """\
@ MX 20 mx2
@ MX 10 mx1
mx1 A 127.0.0.2
mx2 A 127.0.0.3
equal MX 10 mx1
equal MX 10 mx2
null MX 0 .
hosts A 127.0.0.4
alias CNAME hosts
mailalias CNAME @
chain0 CNAME chain1
chain1 CNAME chain2
chain2 CNAME mx1
loop0 CNAME loop1
loop1 CNAME loop0
nowhere MX 10 gone
half MX 10 gone
half MX 20 mx2
ours MX 10 mta.test.
brief 1 MX 10 mx1
text 86400 TXT "a long time"
lasting 86400 MX 10 mx1
delegated NS ns.elsewhere.test.
*.fresh MX 10 mx1
*.wild A 127.0.0.4
"""

_MANY = 60

_NAMED = """\
options {{
  directory "{directory}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none;
  session-keyfile "{directory}/session.key"; recursion no; allow-query {{ 127.0.0.0/8; }}; dnssec-validation no;
}};
controls {{ }};
"""

_UNBOUND = """\
server:
  interface: 127.0.0.1
  port: {port}
  username: ""
  chroot: ""
  directory: "{directory}"
  pidfile: "{directory}/unbound.pid"
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  do-ip6: no
  module-config: "validator iterator"
  trust-anchor-file: "{directory}/anchors"
  local-zone: "test." nodefault
  local-data: "known.test. 300 MX 10 mx1.plain.test."
  domain-insecure: "plain.test"
  domain-insecure: "lame.test"
  access-control: 127.0.0.0/8 allow
  num-threads: 1
  serve-expired: no
remote-control:
  control-enable: no
"""


class DnsLab:
    """``server`` validates; ``authority`` only knows its zones. Both are "address:port" on loopback."""

    def __init__(self, directory: Path) -> None:
        need("named", "dnssec-signzone", "dnssec-keygen", "unbound")
        self.directory = directory / "dns"
        self.directory.mkdir()
        self.port = free_port()
        self.authority_port = free_port()
        self._children = contextlib.ExitStack()
        self.unbound: Child
        self._make_zones()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.authority_port}"

    def _make_zones(self) -> None:
        many = "".join(f"many MX {number} a-long-name-{number}-{'x' * 40}\n" for number in range(1, _MANY))
        many += f"many MX {_MANY} mx1\n"
        for zone in ("example.test", "bogus.test", "plain.test"):
            (self.directory / zone).write_text(_HEAD.format(zone=zone) + _RECORDS + many)
        for zone in ("example.test", "bogus.test"):
            self._sign(zone)
        spoiled = self.directory / "bogus.test"
        text = spoiled.read_text()
        spoiled.write_text(re.sub(r"(MX\s+)10 mx1", r"\g<1>11 mx1", text))
        assert spoiled.read_text() != text, "nothing was spoiled"

    def _sign(self, zone: str) -> None:
        for flags in ((), ("-f", "KSK")):
            key = self._run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *flags, zone).strip()
        (anchor,) = (line for line in (self.directory / f"{key}.key").read_text().splitlines() if line[:1] != ";")
        with (self.directory / "anchors").open("a") as anchors:
            anchors.write(anchor + "\n")
        self._run("dnssec-signzone", "-S", "-o", zone, "-f", f"{zone}.signed", zone)
        (self.directory / f"{zone}.signed").replace(self.directory / zone)

    def _run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [program(name), *arguments], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def _answers(self, port: int, name: str) -> bool:
        try:
            query = dns.message.make_query(name, "MX")
            return bool(dns.query.udp(query, "127.0.0.1", timeout=0.5, port=port).answer)
        except Exception:
            return False

    def __enter__(self) -> Self:
        directory = self.directory
        named = _NAMED.format(directory=directory, port=self.authority_port)
        unbound = _UNBOUND.format(directory=directory, port=self.port)
        for zone in ("example.test", "bogus.test", "plain.test"):
            named += f'zone "{zone}" {{ type primary; file "{zone}"; }};\n'
        for zone in ("example.test", "bogus.test", "plain.test", "lame.test"):
            unbound += f'stub-zone:\n  name: "{zone}"\n  stub-addr: 127.0.0.1@{self.authority_port}\n'
        (directory / "named.conf").write_text(named)
        (directory / "unbound.conf").write_text(unbound)
        with contextlib.ExitStack() as children:
            self.named = children.enter_context(
                Child([program("named"), "-g", "-n", "1", "-c", str(directory / "named.conf")], directory, "named")
            )
            wait_until(lambda: self._answers(self.authority_port, "example.test"), 20, self.named.output)
            self.unbound = children.enter_context(
                Child([program("unbound"), "-d", "-c", str(directory / "unbound.conf")], directory, "unbound")
            )
            wait_until(lambda: self._answers(self.port, "example.test"), 20, self.unbound.output)
            self._children = children.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self.go_on()
        self._children.close()

    def stop(self) -> None:
        """The validating server hangs: it takes queries and says nothing."""
        self.unbound.signal(signal.SIGSTOP)
        wait_until(lambda: self.unbound.status("State")[0] == "T", 20, "unbound stands still")

    def go_on(self) -> None:
        """It does not hang any more."""
        self.unbound.signal(signal.SIGCONT)
