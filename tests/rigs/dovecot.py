"""A Dovecot of our own: LMTP over TCP and a unix socket, IMAP to read back, its mail and log in one directory.

Needs root: Dovecot's master gives its processes other users, and mail belongs to Debian's user "mail".
"""

from __future__ import annotations

import imaplib
import pwd
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rigs.processes import Child, free_port, listens, need, need_root, program, wait_until

DOMAIN = "dovecot.test"

CONFIG = """\
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {directory}/log
info_log_path = {directory}/log
ssl = no
protocols = imap lmtp
listen = 127.0.0.1
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_format = %Ln
mail_location = maildir:{directory}/mail/%n
mail_uid = {uid}
mail_gid = {gid}
first_valid_uid = {uid}
first_valid_gid = {gid}
mail_plugins = quota
mail_max_userip_connections = 50
passdb {{
  driver = passwd-file
  args = username_format=%n {directory}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {directory}/users
  override_fields = uid={uid} gid={gid} home={directory}/mail/%n
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:storage=100M
}}
lmtp_rcpt_check_quota = yes
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
  unix_listener lmtp {{
    path = {directory}/lmtp
    mode = 0600
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@dovecot.test
}}
"""

#: What stands before a message that was delivered: the fields of ours and of Dovecot's.
_TRACE = re.compile(rb"(?:(?:Return-Path|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*", re.IGNORECASE)


class Dovecot:
    """Mailboxes at :data:`DOMAIN`. ``users`` gives each its quota in octets."""

    def __init__(self, directory: Path, users: Mapping[str, int]) -> None:
        need("dovecot")
        need_root("Dovecot's processes change their user")
        # Not below the test's own directory, which only root may enter.
        self.directory = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self.directory.chmod(0o755)
        self._logs = directory
        self._imap = free_port()
        self._lmtp = free_port()
        owner = pwd.getpwnam("mail")
        for name in ("run", "mail"):
            (self.directory / name).mkdir(mode=0o755)
        shutil.chown(self.directory / "mail", "mail", "mail")
        (self.directory / "users").write_text(
            "".join(f"{name}:{{PLAIN}}secret::::::userdb_quota_rule=*:bytes={quota}\n" for name, quota in users.items())
        )
        self._config = self.directory / "dovecot.conf"
        self._config.write_text(
            CONFIG.format(
                directory=self.directory, imap=self._imap, lmtp=self._lmtp, uid=owner.pw_uid, gid=owner.pw_gid
            )
        )
        self._child: Child | None = None

    @property
    def unix(self) -> str:
        """The next hop by its socket."""
        return f"unix:{self.directory}/lmtp"

    @property
    def tcp(self) -> str:
        """The next hop by its port."""
        return f"127.0.0.1:{self._lmtp}"

    def start(self) -> None:
        self._child = Child([program("dovecot"), "-F", "-c", str(self._config)], self._logs, "dovecot")
        wait_until(self._ready, 20, lambda: f"Dovecot listens: {self.log()}")

    def _ready(self) -> bool:
        assert self._child is not None
        assert self._child.running, f"Dovecot ended: {self._child.output()}{self.log()}"
        return listens(self._lmtp) and listens(self._imap)

    def stop(self) -> None:
        """All its processes end; the mail stays."""
        if self._child is not None:
            self._child.end()
            wait_until(lambda: not listens(self._lmtp), 10, "Dovecot's processes end")

    def mailbox(self, user: str) -> list[bytes]:
        """The messages in a user's INBOX, without the trace fields on top."""
        with imaplib.IMAP4("127.0.0.1", self._imap, timeout=30) as imap:
            imap.login(user, "secret")
            imap.select("INBOX", readonly=True)
            _, (numbers, *_) = imap.search(None, "ALL")
            found = []
            for number in numbers.split():
                _, (part, *_) = imap.fetch(number.decode(), "(BODY.PEEK[])")
                assert isinstance(part, tuple)
                found.append(_without_trace(part[1]))
            return found

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _without_trace(message: bytes) -> bytes:
    trace = _TRACE.match(message)
    return message[trace.end() :] if trace else message
