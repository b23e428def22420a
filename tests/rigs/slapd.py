"""A slapd of our own: an LDAP directory on loopback, with its own certificate authority and the people below.

::

    with Slapd(tmp_path) as ldap:
        ldap.settings()          # the [auth.ldap] table of a server that uses it
        ldap.hang(); ldap.go_on()                    # SIGSTOP, SIGCONT
        ldap.stop(); ldap.start(); ldap.restart()    # on the same ports, with the same data
        ldap.binds(), ldap.searches()                # what it was asked, oldest first

People (below :data:`PEOPLE`): ``userN`` with the password ``pwN``, and these with :data:`PASSWORD`:

========== ============================================================================================================
``argon``  a password in {ARGON2}
``locked`` locked by the directory's password policy (pwdAccountLockedTime)
``off``    disabled as in Active Directory (userAccountControl)
``twin``   two entries, so nobody can tell which one
``away``   a referral to :attr:`Slapd.lure`, a listener that notes whatever it is sent
``nomail`` without any address
========== ============================================================================================================

and those with the :data:`ODD` names. Each user has the addresses userN@example.org and aliasN@example.org in ``mail``.
``sales`` (below :data:`GROUPS`, with ``member``) is a group of user1 and user2 with the address sales@example.org;
``info`` is a shared mailbox of user2's with info@example.org and contact@example.org; ``everyone`` has user0 and
``sales`` as members and the address everyone@example.org. What is not below :data:`SUFFIX` is a referral to the lure.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from argon2 import PasswordHasher
from rigs.certificates import Authority
from rigs.processes import Child, free_port, listens, need, program, wait_until

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
SERVICE_DN = f"cn=mta,{SUFFIX}"
SERVICE_PASSWORD = "service secret"
PASSWORD = "secret"
ODD = ("we*ird(x)\\", "o'brien", "a,b+c=d", "zoë", "x<y>;z", 'quo"te', "#hash", "дмитрий")
"""Names that need escapes in filters or DNs, and such beyond ASCII (in NFC); each has the password PASSWORD."""

_CONFIG = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {directory}/slapd.pid
olcThreads: 8
olcReferral: ldap://127.0.0.1:{lure}
{tls}
dn: cn=module,cn=config
objectClass: olcModuleList
cn: module
olcModulePath: /usr/lib/ldap
olcModuleLoad: back_mdb
olcModuleLoad: argon2
olcModuleLoad: pw-sha2
olcModuleLoad: ppolicy

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

include: file:///etc/ldap/schema/core.ldif
include: file:///etc/ldap/schema/cosine.ldif
include: file:///etc/ldap/schema/inetorgperson.ldif
include: file:///etc/ldap/schema/misc.ldif

dn: cn=ad,cn=schema,cn=config
objectClass: olcSchemaConfig
cn: ad
olcAttributeTypes: ( 1.2.840.113556.1.4.8 NAME 'userAccountControl' SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )

dn: olcDatabase={{-1}}frontend,cn=config
objectClass: olcDatabaseConfig
objectClass: olcFrontendConfig
olcDatabase: {{-1}}frontend

dn: olcDatabase=mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: mdb
olcSuffix: {suffix}
olcDbDirectory: {directory}/db
olcDbIndex: objectClass eq
olcDbIndex: uid,mail,member eq
olcDbMaxSize: 268435456
olcAccess: to attrs=userPassword by anonymous auth by * none
olcAccess: to * by dn.exact={service} read by * none

dn: olcOverlay=ppolicy,olcDatabase={{1}}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcPPolicyConfig
olcOverlay: ppolicy
olcPPolicyDefault: cn=policy,{suffix}
"""
_TLS = """\
olcTLSCACertificateFile: {files.authority}
olcTLSCertificateFile: {files.certificate}
olcTLSCertificateKeyFile: {files.key}
"""

_REQUEST = re.compile(r' op=\d+ (?:BIND dn="(.*)" method=128|SRCH base="(.*?)" .* filter="(.*)")$', re.MULTILINE)
_DONE = re.compile(r"conn=\d+ op=\d+ (?:RESULT tag=97|SEARCH RESULT tag=101) ")


class Search(NamedTuple):
    """One that slapd was asked for."""

    base: str
    filter: str


class Slapd:
    """One server. Several may run side by side; give them one ``authority`` if a client is to trust all of them."""

    def __init__(
        self,
        directory: Path,
        *,
        users: int = 10,
        authority: Authority | None = None,
        host: str = "localhost",
        addresses: Sequence[str] = ("127.0.0.1",),
        days: float = 1,
        tls: bool = True,
    ) -> None:
        """``host``, ``addresses`` and ``days``: what its certificate says (it listens on 127.0.0.1 whatever that is).
        ``tls``: False: it knows neither StartTLS nor ldaps."""
        need("slapd", "slapadd")
        number = len(list(directory.glob("slapd*")))
        self.directory = directory / f"slapd{number}"
        (self.directory / "db").mkdir(parents=True)
        (self.directory / "slapd.d").mkdir()
        self.port, self.secure_port = free_port(), free_port()
        self.authority = authority or Authority(self.directory / "authority.pem")
        self.lure = Lure()
        self._tls = tls
        self._child: Child | None = None
        files = self.authority.issue(self.directory, host, addresses=addresses, days=days, name="slapd")
        config = _CONFIG.format(
            directory=self.directory,
            suffix=SUFFIX,
            service=SERVICE_DN,
            lure=self.lure.port,
            tls=_TLS.format(files=files) if tls else "",
        )
        self._add(0, config)
        self._add(1, "\n".join(_entries(users, self.lure.port)))

    def _add(self, database: int, ldif: str) -> None:
        file = self.directory / f"{database}.ldif"
        file.write_text(ldif)
        done = subprocess.run(
            [program("slapadd"), "-q", "-F", str(self.directory / "slapd.d"), "-n", str(database), "-l", str(file)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @property
    def uri(self) -> str:
        """For StartTLS."""
        return f"ldap://localhost:{self.port}"

    @property
    def secure_uri(self) -> str:
        """For TLS from the first octet."""
        return f"ldaps://localhost:{self.secure_port}"

    @property
    def ca_file(self) -> str:
        """Who signed its certificate."""
        return str(self.authority.file)

    def settings(self, *others: Slapd, secure: bool = False, **more: Any) -> dict[str, Any]:
        """The [auth.ldap] table of one who uses this server, then ``others``; ``secure``: by ldaps, not StartTLS."""
        servers = (self, *others)
        return {
            "uris": [each.secure_uri if secure else each.uri for each in servers],
            "start_tls": True,
            "ca_file": self.ca_file,
            "bind_dn": SERVICE_DN,
            "bind_password": SERVICE_PASSWORD,
            "base_dn": SUFFIX,
            "user_filter": "(&(objectClass=inetOrgPerson)(uid={user}))",
            **more,
        }

    def start(self) -> Self:
        """Start it and wait until it listens."""
        assert self._child is None or not self._child.running, "it runs already"
        urls = f"ldap://127.0.0.1:{self.port}" + (f" ldaps://127.0.0.1:{self.secure_port}" if self._tls else "")
        # In the foreground, and telling each operation.
        argv = [program("slapd"), "-F", str(self.directory / "slapd.d"), "-h", urls, "-d", "stats"]
        self._child = child = Child(argv, self.directory, "slapd")

        ports = [self.port, *([self.secure_port] if self._tls else [])]
        asked = self.accepted()

        def ready() -> bool:
            nonlocal asked
            assert child.running, child.output()
            while ports and listens(ports[0]):
                asked += 1
                del ports[0]
            return not ports

        wait_until(ready, 20, lambda: f"slapd listens: {child.output()}")
        # It tells of a connection some time after that was made, and whoever counts would count ours.
        wait_until(lambda: self.accepted() >= asked, 20, lambda: f"slapd tells that we connected: {child.output()}")
        return self

    def stop(self) -> None:
        """End it; its data stays."""
        if self._child is not None and self._child.running:
            self._child.signal(signal.SIGCONT)
            self._child.end()

    def restart(self) -> None:
        """On the same ports, with the same data."""
        self.stop()
        self.start()

    def hang(self) -> None:
        """It goes on accepting connections, and says nothing any more."""
        assert self._child is not None
        self._child.signal(signal.SIGSTOP)
        wait_until(lambda: self._child is None or self._child.status("State")[0] == "T", 20, "slapd stands still")

    def go_on(self) -> None:
        """The end of hang()."""
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    def _log(self) -> str:
        return self._child.output() if self._child is not None else ""

    def binds(self, dn: str = "") -> list[str]:
        """The DNs that it was asked to bind, in slapd's normal form; with ``dn`` only these."""
        return [match[1] for match in self._requests() if match[1] is not None and dn in ("", match[1])]

    def searches(self) -> list[Search]:
        """What it was asked to look for."""
        return [Search(match[2], match[3]) for match in self._requests() if match[3] is not None]

    def _requests(self) -> Iterator[re.Match[str]]:
        return _REQUEST.finditer(self._log())

    def operations(self) -> int:
        """How many binds and searches it has answered."""
        return len(_DONE.findall(self._log()))

    def accepted(self) -> int:
        """How many connections it has accepted; start() makes some, too."""
        return self._log().count(" ACCEPT from ")

    def connections(self) -> int:
        """How many it has open now."""
        assert self._child is not None
        links = (os.readlink(f"/proc/{self._child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{self._child.pid}/fd"))
        return sum(link.startswith("socket:") for link in links) - (2 if self._tls else 1)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self.lure.close()


class Lure:
    """Where a referral leads: it keeps all that it is sent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.visits = 0
        self.received = b""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            with visitor:
                visitor.settimeout(2)
                try:
                    self.received += visitor.recv(65536)
                except OSError:
                    continue

    def close(self) -> None:
        """Nobody can come any more."""
        with contextlib.suppress(OSError):
            # Only this wakes the thread.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def ssha512(password: str) -> str:
    """As OpenLDAP's pw-sha2 stores it."""
    salt = b"a grain."
    return "{SSHA512}" + base64.b64encode(hashlib.sha512(password.encode() + salt).digest() + salt).decode()


def user_dn(name: str) -> str:
    """The DN of a user of this name, whatever is in it."""
    quoted = re.sub(r'([\\,+"<>;=#])', lambda match: f"\\{match[1]}", name)
    return f"uid={quoted},{PEOPLE}"


def _entry(dn: str, classes: Sequence[str], **attributes: str | Sequence[str]) -> str:
    lines = [_line("dn", dn), *(f"objectClass: {each}" for each in classes)]
    for name, values in attributes.items():
        lines += [_line(name, value) for value in ([values] if isinstance(values, str) else values)]
    return "\n".join(lines) + "\n"


def _line(name: str, value: str) -> str:
    return f"{name}:: {base64.b64encode(value.encode()).decode()}"


def _person(name: str, password: str, mail: Sequence[str], below: str = "", **more: str) -> str:
    dn = user_dn(name).replace(PEOPLE, below + PEOPLE)
    classes = ["inetOrgPerson", "extensibleObject"]
    return _entry(dn, classes, uid=name, cn=name, sn="S", mail=mail, userPassword=password, **more)


def _entries(users: int, lure: int) -> Iterator[str]:
    yield _entry(SUFFIX, ["dcObject", "organization"], o="x", dc="example")
    for name, below in (("people", ""), ("guests", "ou=people,"), ("groups", "")):
        yield _entry(f"ou={name},{below}{SUFFIX}", ["organizationalUnit"], ou=name)
    yield _entry(
        f"cn=policy,{SUFFIX}",
        ["device", "pwdPolicy"],
        cn="policy",
        pwdAttribute="2.5.4.35",
        pwdLockout="TRUE",
    )
    service = ssha512(SERVICE_PASSWORD)
    yield _entry(SERVICE_DN, ["organizationalRole", "simpleSecurityObject"], cn="mta", userPassword=service)
    for number in range(users):
        mail = [f"user{number}@example.org", f"alias{number}@example.org"]
        yield _person(f"user{number}", ssha512(f"pw{number}"), mail)
    secret = ssha512(PASSWORD)
    argon = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    yield _person("argon", "{ARGON2}" + argon, ["argon@example.org"])
    yield _person("locked", secret, ["locked@example.org"], pwdAccountLockedTime="000001010000Z")
    yield _person("off", secret, ["off@example.org"], userAccountControl="514")
    yield _person("nomail", secret, [])
    for below in ("", "ou=guests,"):
        yield _person("twin", secret, ["twin@example.org"], below)
    for name in ODD:
        yield _person(name, secret, [f"odd{ODD.index(name)}@example.org"])
    yield _entry(
        user_dn("away"),
        ["referral", "extensibleObject"],
        uid="away",
        ref=f"ldap://127.0.0.1:{lure}/{user_dn('away')}",
    )
    group = ["groupOfNames", "extensibleObject"]
    sales = f"cn=sales,{GROUPS}"
    members = [user_dn("user1"), user_dn("user2")]
    yield _entry(sales, group, cn="sales", mail="sales@example.org", member=members)
    shared = ["info@example.org", "contact@example.org"]
    yield _entry(f"cn=info,{GROUPS}", group, cn="info", mail=shared, member=user_dn("user2"))
    everyone = [user_dn("user0"), sales]
    yield _entry(f"cn=everyone,{GROUPS}", group, cn="everyone", mail="everyone@example.org", member=everyone)
