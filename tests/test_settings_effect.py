"""Every setting that is said to have an effect has it: the same scenario with two values ends differently."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from auth.gates import Guarded, guesses
from control.visitor import Visitor as ControlVisitor
from metrics import watching
from OpenSSL import SSL
from receive.whole import ALICE, HELD, SUBMISSION, Session, Whole
from rigs import certificates
from rigs.fake_dns import Zone, silent
from tls.handshakes import Visitor
from transports.peer import Peer
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogLevel, capturedLogs

from mtatwist import describe
from mtatwist.config import ConfigError
from mtatwist.dns.cache import Answer

ROOT = Path(__file__).resolve().parents[1]
STRANGER = "192.0.2.7"
FRIEND = "198.51.100.9"


class Effect(NamedTuple):
    """What ``observe`` sees with each value (as TOML); ``beside`` are further settings."""

    observe: Callable[[Whole], Any]
    seen: dict[str, Any]
    beside: dict[str, str] = {}  # noqa: RUF012


def reply(*lines: str | bytes, peer: str = STRANGER) -> Callable[[Whole], Any]:
    """The code of the last reply."""

    def observe(server: Whole) -> int:
        session = server.connect(peer)
        session.say("EHLO client.test")
        said = session.say(*lines)
        return int(said.splitlines()[-1][:3])

    return observe


LOOK = hashlib.sha256(b"look").hexdigest()


def known_as(server: Whole) -> tuple[str, str]:
    """What the role of the one is who has the token "look", and what the log calls them."""
    visitor = ControlVisitor(server.mta.control._socket.factory)
    with capturedLogs() as events:
        welcome = visitor.hello("look")
    if not welcome:
        return "", ""
    (event,) = [event for event in events if event["log_format"] == "control"]
    return welcome["role"], event["token"]


def second_connection(first: str, second: str) -> Callable[[Whole], Any]:
    def observe(server: Whole) -> str:
        server.connect(first)
        return server.connect(second).greeting[:3]

    return observe


def after(seconds: float, *lines: str | bytes, then: str = "") -> Callable[[Whole], Any]:
    """The reply that has come without a further word (or to the words ``then``) after this time, or none."""

    def observe(server: Whole) -> str:
        session = server.connect()
        session.begin()
        session.say(*lines)
        server.pass_time(seconds)
        return (session.say(then) if then else session.heard())[:9]

    return observe


def after_bytes_in_time(server: Whole) -> str:
    """What is said to a client that sends a little every three seconds."""
    session = server.connect()
    session.begin()
    session.say("DATA")
    for _ in range(5):
        server.pass_time(3)
        if session.ended:
            break
        session.protocol.dataReceived(b"x" * 50 + b"\r\n")
    return session.heard()[:9]


def slow_to_store(server: Whole) -> str:
    server.spool.trouble = HELD
    session = server.connect()
    session.send()
    server.pass_time(10)
    return session.heard()[:9]


def stopping(server: Whole) -> bool:
    session = server.connect()
    session.begin()
    server.mta.stopService()
    server.pass_time(5)
    return session.ended


def postmaster(server: Whole) -> str:
    server.connect().send("postmaster")
    return str(server.recipients()[0].address)


def names_its_user(server: Whole) -> bool:
    """Does the Received field of a message?"""
    server.connect().say("EHLO client.test", *AS_ALICE, "DATA", ".")
    return b"(authenticated user alice)" in server.spool.messages[1].body


def delivered_to(address: str) -> Callable[[Whole], Any]:
    """Who gets a message to this address; the code of the refusal, if it is refused."""

    def observe(server: Whole) -> int | list[str]:
        refusal = server.connect().begin(address).splitlines()[-1]
        if refusal.startswith("2"):
            server.connect().send(address)
            return [recipient.address for recipient in server.recipients()]
        return int(refusal[:3])

    return observe


def first_wait(server: Whole) -> bool:
    server.connect().send()
    server.next_hop_is_down()
    return server.recipients()[0].next_attempt - server.reactor.seconds() > 1000


def too_old(server: Whole) -> list[str]:
    """Who the messages in the spool are for, when the first attempt takes two hours to fail."""
    server.connect().send()
    server.pass_time(7200)
    server.next_hop_is_down()
    return [recipient.address for number in server.spool.messages for recipient in server.recipients(number)]


def goes_back_whole(server: Whole) -> bool:
    """Does a message that is refused, whose sender wants all of it back?"""
    session = server.connect()
    session.begin(mail="MAIL FROM:<me@away.test> RET=FULL")
    session.say("DATA", b"Subject: x\r\n\r\nhello\r\n.\r\n")
    server.next_hop(Peer(lambda command: "550 5.1.1 no" if "you@here.test" in command else None))
    (report,) = server.spool.messages.values()
    return b"hello" in report.body


def outgoing(server: Whole) -> list[int]:
    """The ports of the connections that two messages open."""
    for _ in range(2):
        server.connect().send()
    return [port for _, port, *_ in server.reactor.tcpClients]


def outgoing_hosts(server: Whole) -> list[str]:
    """The addresses of the connections that a message opens."""
    server.connect().send()
    return [host for host, *_ in server.reactor.tcpClients]


def dns_asked(server: Whole) -> str:
    """The DNS server that is asked first for where a message is to go."""
    server.connect().send()
    return server.network.asked()[0]


def ad_asked(server: Whole) -> bool:
    """Does the query ask whether the answer is authentic?"""
    server.connect().send()
    return bool(server.network.sent[0][2].flags & 0x0020)


def dns_patience(server: Whole) -> bool:
    """Has the message been deferred after ten seconds with a silent DNS?"""
    server.connect().send()
    server.pass_time(10)
    return bool(server.recipients()[0].attempts)


def looked_up(ttl: int, *lookups: tuple[str, float]) -> Callable[[Whole], Any]:
    """How many queries these lookups take, each so many seconds after the one before."""

    def observe(server: Whole) -> int:
        server.network.default = Zone(f"a.test {ttl} TXT a", f"b.test {ttl} TXT b")
        for name, seconds in lookups:
            server.pass_time(seconds)
            Deferred.fromCoroutine(server.mta.dns.resolver.lookup(name, "TXT"))
            server.pass_time(0.1)
        return len(server.network.sent)

    return observe


def old_answer(server: Whole) -> bool:
    """Is an answer of yesterday given when the DNS is away?"""
    looked_up(300, ("a.test", 0))(server)
    server.network.default = silent
    server.pass_time(86000)
    results: list[Any] = []
    Deferred.fromCoroutine(server.mta.dns.resolver.lookup("a.test", "TXT")).addBoth(results.append)
    server.pass_time(60)
    return isinstance(results[0], Answer)


def starttls_said(server: Whole) -> bool:
    server.connect().send()
    return "STARTTLS" in server.next_hop(Peer(extensions=("STARTTLS",))).heard


def patience(silent: str, *, greeting: str | None = "220 hi", slow: bool = False) -> Callable[[Whole], Any]:
    """Is a next hop that is silent at this command cut after ten seconds?"""

    def observe(server: Whole) -> bool:
        peer = Peer(lambda command: "silence" if silent and command.startswith(silent) else None, greeting=greeting)
        peer.slow = slow
        server.connect().send()
        server.next_hop(peer)
        if silent == "QUIT":
            server.pass_time(5.1)
            assert peer.closing
        server.pass_time(10)
        return peer.aborted

    return observe


def connect_limit(server: Whole) -> float:
    server.connect().send()
    return float(server.reactor.tcpClients[0][3])


def handshake(server: Whole, **how: Any) -> str:
    """Whose certificate a client that knows no TLS 1.3 gets to see over implicit TLS."""
    factory = server.reactor.tcpServers[0][1]
    return Visitor(factory, newest=SSL.TLS1_2_VERSION, **how).shake_hands().saw


def renewed(server: Whole) -> str:
    """The same, after another certificate has been put in place and ten seconds."""
    directory = Path(str(server.config.tls.certificate)).parent.parent
    for name in ("mta.pem", "mta.key"):
        (directory / "one" / f"before.{name}").write_bytes((directory / "one" / name).read_bytes())
        (directory / "one" / name).write_bytes((directory / "two" / name).read_bytes())
    try:
        server.pass_time(10)
        return handshake(server)
    finally:
        for name in ("mta.pem", "mta.key"):
            os.replace(directory / "one" / f"before.{name}", directory / "one" / name)


def asked_for_a_certificate(server: Whole) -> tuple[str, bool]:
    """What comes of a client that has none, and whether it was asked."""
    visitor = Visitor(server.reactor.tcpServers[0][1], newest=SSL.TLS1_2_VERSION).shake_hands()
    return visitor.saw, bool(visitor.connection.get_client_ca_list())


def known_client(server: Whole) -> str:
    """Who a client with a certificate of the first authority is, to the server."""
    directory = Path(str(server.config.tls.certificate)).parent
    shown = certificates.Files(directory / "authority.pem", directory / "mta.pem", directory / "mta.key")
    visitor = Visitor(server.reactor.tcpServers[0][1], shown=shown).shake_hands()
    return str(visitor.protocol.wrappedProtocol.session.client_certificate)


def stalls_its_handshake(server: Whole) -> bool:
    """Is a client that says nothing cut after half a minute?"""
    visitor = Visitor(server.reactor.tcpServers[0][1])
    server.pass_time(30)
    return bool(visitor.transport.disconnecting)


class _Parent(MultiService):
    observer: Any = None

    def setComponent(self, interface: Any, component: Any) -> None:
        assert interface is ILogObserver
        self.observer = component


def logged(server: Whole, **facts: Any) -> str:
    """What the log says of an event."""
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout.write", lines.append, raising=False)
        parent = _Parent()
        server.mta.parent = None
        server.mta.setServiceParent(parent)
        event = {"log_time": 0.0, "log_level": LogLevel.info, "log_namespace": "mtatwist.x", "log_format": "hi"}
        parent.observer({**event, **facts})
        parent.observer.flush()
    return "".join(lines)


def log_line(server: Whole) -> bool:
    """Is what the log says JSON?"""
    try:
        json.loads(logged(server))
    except ValueError:
        return False
    return True


def log_has(word: str) -> Callable[[Whole], bool]:
    """Does this word stand in the line about an ordinary event?"""
    return lambda server: word in logged(server, forward_path="alice@example.org")


NOBODY = "AUTH PLAIN AGFsaWNlAHdyb25n"


def lets_in(*wrong: str, user: str = "alice", then: float = 0, between: float = 0) -> Callable[[Whole], Any]:
    """Does Alice get in after wrong passwords, so many seconds apart, and another wait?"""

    def observe(server: Whole) -> bool:
        guarded = Guarded(server)
        for number, secret in enumerate(wrong):
            assert guarded.log_in(secret, user.format(number)).startswith("535")
            server.pass_time(between)
        server.pass_time(then)
        return guarded.log_in().startswith("235")

    return observe


AS_ALICE = (ALICE, "MAIL FROM:<alice@example.org>", "RCPT TO:<you@away.test>")
ENVELOPE = ("MAIL FROM:<me@away.test>", "RCPT TO:<you@here.test>")
IMPLICIT = {"listen.tls": '"implicit"', "tls.certificate": '"one/mta.pem"', "tls.private_key": '"one/mta.key"'}
BIG = f"MAIL FROM:<me@away.test> SIZE={20 * 2**20}"

BY_MX = {"route.next_hop": "", "dns.override.domain": '"here.test"'}
LOOKED_UP = {"route.next_hop": ""}

EFFECTS: dict[str, Effect | str] = {
    "server.hostname": Effect(
        lambda server: server.connect().greeting.split()[1], {'"a.test"': "a.test", '"b.test"': "b.test"}
    ),
    "server.data_dir": "tests/integration/test_lifecycle.py::test_a_data_directory_belongs_to_one_process",
    "listen.endpoint": Effect(lambda server: server.reactor.tcpServers[0][0], {'"tcp:2525"': 2525, '"tcp:2526"': 2526}),
    "listen.role": Effect(reply(ENVELOPE[0]), {'"mx"': 250, '"submission"': 530}),
    "listen.tls": Effect(
        lambda server: "STARTTLS" in server.connect().say("EHLO client.test"),
        {'"none"': False, '"starttls"': True},
        {"tls.certificate": '"one/mta.pem"', "tls.private_key": '"one/mta.key"'},
    ),
    "tls.certificate": Effect(
        handshake, {'"one/mta.pem"': "one.test", '"two/mta.pem"': "the key is of another certificate"}, IMPLICIT
    ),
    "tls.private_key": Effect(
        handshake, {'"one/mta.key"': "one.test", '"two/mta.key"': "the key is of another certificate"}, IMPLICIT
    ),
    "tls.minimum": Effect(handshake, {'"1.2"': "one.test", '"1.3"': "refused"}, IMPLICIT),
    "tls.reload": Effect(renewed, {'"5s"': "two.test", '"1h"': "one.test"}, IMPLICIT),
    "tls.client_certificates": Effect(
        asked_for_a_certificate,
        {'"none"': ("one.test", False), '"ask"': ("one.test", True), '"require"': ("refused", True)},
        {**IMPLICIT, "tls.client_ca_file": '"one/authority.pem"'},
    ),
    "tls.client_ca_file": Effect(
        known_client,
        {'"one/authority.pem"': "CN=one.test", '"two/authority.pem"': ""},
        {**IMPLICIT, "tls.client_certificates": '"ask"'},
    ),
    "tls.name.certificate": Effect(
        partial(handshake, name="two.test"),
        {'"two/mta.pem"': "two.test", '"one/mta.pem"': "the key is of another certificate"},
        {**IMPLICIT, "tls.name.private_key": '"two/mta.key"'},
    ),
    "tls.name.private_key": Effect(
        partial(handshake, name="two.test"),
        {'"two/mta.key"': "two.test", '"one/mta.key"': "the key is of another certificate"},
        {**IMPLICIT, "tls.name.certificate": '"two/mta.pem"'},
    ),
    "timeouts.handshake": Effect(stalls_its_handshake, {'"20s"': True, '"1m"': False}, IMPLICIT),
    "auth.ldap.uris": "tests/integration/test_directory.py::test_one_of_two",
    "auth.ldap.start_tls": "tests/integration/test_directory.py::test_in_clear_where_that_is_wanted",
    "auth.ldap.ca_file": "tests/integration/test_directory.py::test_no_authority_of_ours",
    "auth.ldap.bind_dn": "tests/integration/test_directory.py::test_searching_as_nobody",
    "auth.ldap.bind_password": "tests/integration/test_directory.py::test_an_account_that_may_not_search",
    "auth.ldap.base_dn": "tests/integration/test_directory.py::test_a_base_that_is_not_there",
    "auth.ldap.user_filter": "tests/integration/test_directory.py::test_an_account_has_one_name",
    "auth.ldap.address_attributes": "tests/integration/test_directory.py::test_other_attributes_hold_the_addresses",
    "auth.ldap.group_filter": "tests/integration/test_directory.py::test_groups_and_shared_mailboxes",
    "auth.ldap.connections": "tests/integration/test_directory.py::test_what_is_bounded",
    "auth.ldap.connect_timeout": "tests/integration/test_directory.py::test_a_host_that_is_not_there",
    "auth.ldap.timeout": "tests/integration/test_directory.py::test_the_time_for_a_login",
    "auth.ldap.offline_cache": "tests/integration/test_directory.py::test_remembered_for_bad_days",
    "auth.ldap.recipient_filter": "tests/integration/test_recipients.py::test_who_is_unknown_is_refused",
    "auth.ldap.alias_filter": "tests/integration/test_recipients.py::test_groups_of_the_directory",
    "auth.ldap.alias_attributes": "tests/integration/test_recipients.py::test_forwarding_by_the_directory",
    "auth.ldap.member_attributes": "tests/integration/test_recipients.py::test_members_in_another_attribute",
    "auth.ldap.member_filter": "tests/integration/test_recipients.py::test_members_that_do_not_count",
    "relay.recipients": Effect(reply(*ENVELOPE), {'"people"': 250, '"others"': 550}),
    "relay.aliases": Effect(
        delivered_to("team@here.test"),
        {'"aliases"': ["a@here.test", "b@away.test"], '"others-aliases"': ["c@here.test"]},
    ),
    "relay.expansion": Effect(
        delivered_to("team@here.test"), {"1": 451, "2": ["a@here.test", "b@away.test"]}, {"relay.aliases": '"aliases"'}
    ),
    "relay.device.network": Effect(
        reply(ENVELOPE[0], "RCPT TO:<x@away.test>", peer=FRIEND),
        {'"198.51.100.9"': 250, '"198.51.100.10"': 550},
        {"relay.networks": "", "relay.device.senders": '["@away.test"]'},
    ),
    "relay.device.senders": Effect(
        reply(ENVELOPE[0], peer=FRIEND),
        {'["me@away.test"]': 250, '["@AWAY.test"]': 250, '["you@away.test"]': 553, '["<>"]': 553},
        {"relay.device.network": '"198.51.100.0/28"'},
    ),
    "relay.networks": Effect(
        reply(ENVELOPE[0], "RCPT TO:<x@away.test>", peer=FRIEND), {'["198.51.100.0/24"]': 250, "[]": 550}
    ),
    "relay.domains": Effect(reply(*ENVELOPE), {'["here.test"]': 250, '["there.test"]': 550}),
    "relay.postmaster": Effect(postmaster, {'"a@x.test"': "a@x.test", '"b@x.test"': "b@x.test"}),
    "relay.retry": Effect(first_wait, {'"10m"': False, '"1h"': True}),
    "relay.max_age": Effect(too_old, {'"1h"': ["me@away.test"], '"5d"': ["you@here.test"]}),
    "relay.warn_after": Effect(
        too_old, {'"1h"': ["you@here.test", "me@away.test"], '"3h"': ["you@here.test"], '"0s"': ["you@here.test"]}
    ),
    "relay.return_size": Effect(goes_back_whole, {'"1MiB"': True, '"100B"': False}),
    "relay.connections": Effect(outgoing, {"2": [25], "4": [25, 25]}),
    "route.domain": Effect(outgoing, {'"here.test"': [25, 25], '"there.test"': []}),
    "route.transport": "tests/test_readme.py::test_the_tour_shows_the_message",
    "route.next_hop": Effect(outgoing, {'"next.test"': [25, 25], '"next.test:26"': [26, 26]}),
    "route.tls": Effect(starttls_said, {'"none"': False, '"may"': True}),
    "route.connections": Effect(outgoing, {"1": [25], "2": [25, 25]}),
    "route.mx_port": Effect(outgoing, {"25": [25, 25], "26": [26, 26]}, BY_MX),
    "route.mx_loopback": Effect(
        outgoing_hosts, {"false": [], "true": ["127.0.0.5"]}, {**BY_MX, "dns.override.addresses": '["127.0.0.5"]'}
    ),
    "limits.message_size": Effect(reply(BIG), {'"1MiB"': 552, '"30MiB"': 250}),
    "limits.recipients": Effect(reply(*ENVELOPE, ENVELOPE[1]), {"1": 452, "2": 250}),
    "limits.connections": Effect(second_connection(STRANGER, FRIEND), {"1": "421", "2": "220"}),
    "limits.connections_per_address": Effect(second_connection(STRANGER, STRANGER), {"1": "421", "2": "220"}),
    "limits.hops": Effect(reply(*ENVELOPE, "DATA", b"Received: a\r\n" * 3 + b"\r\nx\r\n.\r\n"), {"2": 554, "3": 250}),
    "limits.errors": Effect(reply("NONSENSE", "NONSENSE"), {"2": 421, "3": 500}),
    "limits.data_rate": Effect(
        after_bytes_in_time, {'"1KiB"': "421 4.4.2", '"1B"': ""}, {"timeouts.data_block": '"5s"'}
    ),
    "timeouts.command": Effect(after(10), {'"5s"': "421 4.4.2", '"1m"': ""}),
    "timeouts.data_init": Effect(after(10, "DATA"), {'"5s"': "421 4.4.2", '"1m"': ""}),
    "timeouts.data_block": Effect(after(10, "DATA", "Subject: x"), {'"5s"': "421 4.4.2", '"1m"': ""}),
    "timeouts.data_done": Effect(slow_to_store, {'"5s"': "421 4.4.2", '"1m"': ""}),
    "timeouts.session": Effect(after(10, "RSET", then="NOOP"), {'"5s"': "421 4.4.2", '"1m"': "250 2.0.0"}),
    "timeouts.shutdown": Effect(stopping, {'"1s"': True, '"1m"': False}),
    "timeouts.client.connect": Effect(connect_limit, {'"5s"': 5.0, '"1m"': 60.0}),
    "timeouts.client.greeting": Effect(patience("", greeting=None), {'"5s"': True, '"1m"': False}),
    "timeouts.client.ehlo": Effect(patience("EHLO"), {'"5s"': True, '"1m"': False}),
    "timeouts.client.mail": Effect(patience("MAIL"), {'"5s"': True, '"1m"': False}),
    "timeouts.client.rcpt": Effect(patience("RCPT"), {'"5s"': True, '"1m"': False}),
    "timeouts.client.data_init": Effect(patience("DATA"), {'"5s"': True, '"1m"': False}),
    "timeouts.client.data_block": Effect(patience(".", slow=True), {'"5s"': True, '"1m"': False}),
    "timeouts.client.data_done": Effect(patience("."), {'"5s"': True, '"1m"': False}),
    "timeouts.client.quit": Effect(patience("QUIT"), {'"5s"': True, '"1m"': False}),
    "validators.order": Effect(
        reply(BIG), {'["relay"]': 250, '["size", "relay"]': 552}, {"limits.message_size": '"1MiB"'}
    ),
    "dns.servers": Effect(dns_asked, {'["192.0.2.1"]': "192.0.2.1", '["192.0.2.2"]': "192.0.2.2"}, LOOKED_UP),
    "dns.trust_ad": Effect(ad_asked, {"false": False, "true": True}, LOOKED_UP),
    "dns.timeout": Effect(dns_patience, {'"5s"': True, '"1m"': False}, LOOKED_UP),
    "dns.minimum_ttl": Effect(looked_up(1, ("a.test", 0), ("a.test", 30)), {'"0s"': 2, '"1m"': 1}),
    "dns.maximum_ttl": Effect(looked_up(86400, ("a.test", 0), ("a.test", 1800)), {'"1m"': 2, '"1h"': 1}),
    "dns.maximum_stale": Effect(old_answer, {'"0s"': False, '"1h"': False, '"1d"': True}),
    "dns.cache_entries": Effect(looked_up(300, ("a.test", 0), ("b.test", 0), ("a.test", 0)), {"1": 3, "2": 2}),
    "dns.override.domain": Effect(
        outgoing_hosts, {'"next.test"': ["192.0.2.1"], '"other.test"': []}, {"route.next_hop": '"next.test"'}
    ),
    "dns.override.addresses": Effect(
        outgoing_hosts, {'["192.0.2.7"]': ["192.0.2.7"], '["2001:db8::7"]': ["2001:db8::7"]}
    ),
    "dns.override.servers": Effect(
        dns_asked,
        {'["192.0.2.1"]': "192.0.2.1", '["192.0.2.2"]': "192.0.2.2"},
        {**BY_MX, "dns.override.addresses": ""},
    ),
    "relay.recipient_delimiter": Effect(
        reply(ALICE, "MAIL FROM:<alice+x@example.org>"), {'"+"': 250, '"-"': 553, '""': 553}, SUBMISSION
    ),
    "submission.from_mismatch": Effect(
        reply(*AS_ALICE, "DATA", b"From: bob@example.org\r\n\r\n.\r\n"), {'"log"': 250, '"reject"': 553}, SUBMISSION
    ),
    "submission.received_user": Effect(names_its_user, {"false": False, "true": True}, SUBMISSION),
    "submission.messages": Effect(
        reply(*AS_ALICE, "DATA", ".", AS_ALICE[1]), {'["1/h"]': 450, '["2/h"]': 250, "[]": 250}, SUBMISSION
    ),
    "submission.recipients": Effect(
        reply(*AS_ALICE, "RCPT TO:<bob@away.test>"), {'["9/d", "1/h"]': 450, '["2/h"]': 250, "[]": 250}, SUBMISSION
    ),
    "metrics.endpoint": Effect(watching.collector_port, {'"http://192.0.2.9:4318/"': 4318, '"http://192.0.2.9/"': 80}),
    "metrics.api_key": Effect(
        lambda server: "Authorization: Bearer a" in watching.pushed(server).header,
        {'"a"': True, '"b"': False},
        watching.SETTINGS,
    ),
    "metrics.interval": Effect(watching.pushes_soon, {'"1s"': True, '"3650d"': False}, watching.SETTINGS),
    "metrics.ca_file": "tests/integration/test_push.py::test_the_collector_has_to_be_the_one_we_mean",
    "metrics.attributes": Effect(
        watching.attributes, {"[]": {}, '["a.b=c=d", "e="]': {"a.b": "c=d", "e": ""}}, watching.SETTINGS
    ),
    "health.endpoint": Effect(
        lambda server: [port for port, *_ in server.reactor.tcpServers], {'"tcp:8080"': [2525, 8080], "": [2525]}
    ),
    "health.queue_limit": Effect(watching.ready_with_three, {"1": 503, "5": 200}, watching.SETTINGS),
    "control.socket": "tests/integration/test_control.py::test_the_socket_is_where_and_whose_it_is_said_to_be",
    "control.mode": "tests/integration/test_control.py::test_the_socket_is_where_and_whose_it_is_said_to_be",
    "control.group": "tests/integration/test_control.py::test_the_socket_is_where_and_whose_it_is_said_to_be",
    "control.token.name": Effect(
        known_as,
        {'"eye"': ("read", "eye"), '"ear"': ("read", "ear")},
        {"control.token.sha256": f'"{LOOK}"'},
    ),
    "control.token.role": Effect(
        known_as,
        {'"read"': ("read", "eye"), '"admin"': ("admin", "eye")},
        {"control.token.name": '"eye"', "control.token.sha256": f'"{LOOK}"'},
    ),
    "control.token.sha256": Effect(
        known_as,
        {f'"{LOOK}"': ("read", "eye"), f'"{"0" * 64}"': ("", "")},
        {"control.token.name": '"eye"'},
    ),
    "spool.minimum_free": Effect(reply(ENVELOPE[0]), {'"1MiB"': 250, '"900000TiB"': 452}),
    "spool.ballast": "tests/integration/test_disk_faults.py::test_a_full_disk_drains_on_its_ballast",
    "auth.backend": "tests/integration/test_login_faults.py::test_each_backend_lets_its_own_users_in",
    "auth.file": "tests/integration/test_password_file.py::test_users_come_and_go_without_a_restart",
    "auth.mechanisms": Effect(reply(ALICE), {'["PLAIN", "LOGIN"]': 235, '["LOGIN"]': 504}, SUBMISSION),
    "auth.require_tls": Effect(reply(ALICE), {"true": 538, "false": 235}, {"listen.role": '"submission"'}),
    "auth.failures": Effect(reply(*[NOBODY] * 2, "NOOP"), {"2": 421, "3": 250}, SUBMISSION),
    "auth.lockout.threshold": Effect(lets_in(*guesses(3)), {"3": False, "4": True}, SUBMISSION),
    "auth.lockout.address_threshold": Effect(
        lets_in(*guesses(6), user="nobody{}"), {"6": False, "7": True}, SUBMISSION
    ),
    "auth.lockout.window": Effect(lets_in(*guesses(5), between=60), {'"3m"': True, '"15m"': False}, SUBMISSION),
    "auth.lockout.duration": Effect(lets_in(*guesses(5), then=600), {'"5m"': True, '"30m"': False}, SUBMISSION),
    "log.format": Effect(log_line, {'"json"': True, '"text"': False}),
    "log.level": Effect(log_has("hi"), {'"info"': True, '"warn"': False}),
    "log.redact": Effect(log_has("alice"), {"false": True, "true": False}),
}
WITH_EFFECT = {entry.path for entry in describe.select("") if describe.as_object(entry)["effect"]}


def cases() -> Iterator[Any]:
    """Each setting with each of its values."""
    for key, effect in EFFECTS.items():
        if isinstance(effect, Effect):
            for value, expected in effect.seen.items():
                yield pytest.param(key, value, expected, id=f"{key}={value}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the configuration stands, with two certificates."""
    made = tmp_path_factory.mktemp("settings")
    (made / "one").mkdir()
    certificates.make(made / "one", "one.test")
    (made / "two").mkdir()
    certificates.make(made / "two", "two.test")
    (made / "people").write_text("you\n")
    (made / "others").write_text("they\n")
    (made / "aliases").write_text("team: a, b@away.test\n")
    (made / "others-aliases").write_text("team: c\n")
    return made


@pytest.mark.parametrize(("key", "value", "expected"), list(cases()))
def test_effect(monkeypatch: pytest.MonkeyPatch, directory: Path, key: str, value: str, expected: Any) -> None:
    effect = EFFECTS[key]
    assert isinstance(effect, Effect)
    try:
        seen = effect.observe(Whole(monkeypatch, directory, {**effect.beside, key: value}))
    except ConfigError:
        seen = "the key is of another certificate"
    assert seen == expected


def test_every_setting_with_effect_has_a_scenario_and_no_other() -> None:
    assert set(EFFECTS) == WITH_EFFECT


def test_the_values_of_a_scenario_make_a_difference() -> None:
    for key, effect in EFFECTS.items():
        if isinstance(effect, Effect):
            assert any(one != other for one, other in itertools.combinations(effect.seen.values(), 2)), key


@pytest.mark.parametrize("key", [key for key, effect in EFFECTS.items() if isinstance(effect, str)])
def test_the_tests_that_stand_elsewhere_exist(key: str) -> None:
    path, _, name = str(EFFECTS[key]).partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_sessions_are_played_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The scenarios mean something: without trouble a message goes in and comes out."""
    server = Whole(monkeypatch, tmp_path)
    session: Session = server.connect()
    assert session.send().startswith("250 2.0.0")
    peer = server.next_hop(Peer())
    (arrived,) = peer.messages
    assert arrived.endswith(b"Subject: x\r\n\r\nhello\r\n")
    assert server.spool.messages == {}
