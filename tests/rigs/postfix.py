"""A Postfix of our own: its queue, configuration and log in one directory, its ports on loopback.

Needs root: Postfix's master starts only as root, and its queue belongs to its own user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Self

from rigs.client import Address
from rigs.processes import free_port, listens, need, need_root, program, wait_until

MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/maillog
maillog_file_prefixes = {directory}
myhostname = postfix.test
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{next_hop}
disable_dns_lookups = yes
smtp_host_lookup = native
message_size_limit = 26214400
mailbox_size_limit = 0
default_process_limit = 100
default_destination_concurrency_limit = 20
default_destination_recipient_limit = 50
in_flow_delay = 0
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
smtpd_client_recipient_rate_limit = 0
local_header_rewrite_clients =
smtpd_peername_lookup = no
"""

MASTER = """\
127.0.0.1:{relay} inet n - n - - smtpd
127.0.0.1:{hold} inet n - n - - smtpd
  -o {{ smtpd_sender_restrictions = check_sender_access static:HOLD }}
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


class Postfix:
    """``relay`` passes everything on to ``next_hop``; ``hold`` accepts it and leaves it in the queue."""

    def __init__(self, directory: Path, next_hop: int) -> None:
        need("postfix")
        need_root("Postfix's master runs as root")
        self.directory = directory / "postfix"
        self.relay: Address = ("127.0.0.1", free_port())
        self.hold: Address = ("127.0.0.1", free_port())
        for name in ("queue", "data"):
            (self.directory / name).mkdir(parents=True)
        self.directory.chmod(0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(self.directory / "data", owner.pw_uid, owner.pw_gid)
        main = MAIN.format(directory=self.directory, next_hop=next_hop)
        (self.directory / "main.cf").write_text(main)
        master = MASTER.format(relay=self.relay[1], hold=self.hold[1])
        (self.directory / "master.cf").write_text(master)

    def _run(self, name: str, *arguments: str) -> str:
        done = subprocess.run(
            [program(name), "-c", str(self.directory), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def empty(self) -> None:
        """Throw away what is on hold."""
        self._run("postsuper", "-d", "ALL", "hold")

    def queued(self) -> int:
        """How many messages are not on hold and still here."""
        queue = self.directory / "queue"
        names = ("maildrop", "incoming", "active", "deferred")
        return sum(f.is_file() for name in names for f in (queue / name).rglob("*"))

    def log(self) -> str:
        return (self.directory / "maillog").read_text("utf-8", "replace")

    def __enter__(self) -> Self:
        self._run("postfix", "start")
        try:
            wait_until(lambda: listens(self.relay[1]) and listens(self.hold[1]), 20, "Postfix listens")
        except BaseException:
            self._run("postfix", "abort")
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._run("postfix", "stop")
        shutil.rmtree(self.directory, ignore_errors=True)
