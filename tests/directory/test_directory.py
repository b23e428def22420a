"""Which server is asked, when none is, and what is bounded; servers played in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from directory.played import ATTEMPT, SECONDS, Host, Rig
from rigs.processes import wait_until
from twisted.logger import capturedLogs

from mtatwist.directory.connection import (
    REFUSED,
    AnswerOverrun,
    ConnectionLost,
    Entry,
    OperationRefused,
    ServerFailed,
    ServerSilent,
    ServerUntrusted,
)
from mtatwist.directory.directory import REPEAT_SECONDS, RETRY_SECONDS, TIDY_SECONDS
from mtatwist.directory.server import IDLE_SECONDS
from mtatwist.interfaces import AnswerTooLarge, DirectoryTrouble

MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(*arguments: Any, **settings: Any) -> Rig:
        made.append(Rig(*arguments, **settings))
        return made[-1]

    yield make
    for rig in made:
        rig.stop()


def is_trouble(outcome: Any) -> bool:
    return bool(outcome.check(DirectoryTrouble))


def events(caught: Any, name: str) -> list[str]:
    return [event["server"] for event in caught if event["log_format"] == name]


def test_it_finds_and_binds(make_rig: MakeRig) -> None:
    rig = make_rig()
    assert rig.search() == [Entry("uid=user1", {})]
    assert (rig.bind(), rig.bind(password="no"), rig.bind(dn="uid=x")) == (True, False, False)


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_results_that_refuse_a_login(make_rig: MakeRig, code: int) -> None:
    rig = make_rig(2)
    rig.hosts[0].answer = lambda: code
    assert rig.bind() is False
    # It is an answer, so nobody else is asked.
    assert rig.hosts[1].requests == []


@pytest.mark.parametrize("code", [1, 2, 3, 7, 8, 10, 13, 34, 80])
def test_results_that_say_nothing_about_the_password(make_rig: MakeRig, code: int) -> None:
    rig = make_rig(2)
    rig.hosts[0].answer = lambda: code
    assert rig.bind() is True
    rig.hosts[1].answer = lambda: code
    assert is_trouble(rig.bind())
    assert rig.metrics.directory_servers_down.value == 0


def test_the_first_that_is_well_is_asked(make_rig: MakeRig) -> None:
    rig = make_rig(3)
    rig.hosts[0].trouble = ServerFailed("no")
    rig.hosts[0].lose()
    assert rig.search() == [Entry("uid=user1", {})]
    assert [len(host.requests) for host in rig.hosts] == [1, 1, 0]
    # It is known now, and left alone.
    rig.settle()
    assert rig.search() == [Entry("uid=user1", {})]
    assert [len(host.requests) for host in rig.hosts] == [1, 2, 0]


def test_a_server_that_failed_is_tried_again_until_it_works(make_rig: MakeRig) -> None:
    rig = make_rig()
    with capturedLogs() as caught:
        rig.hosts[0].trouble = ServerFailed("no")
        rig.hosts[0].lose()
        assert is_trouble(rig.search())
        rig.settle()
        for _ in range(5):
            assert is_trouble(rig.search())
            rig.later(RETRY_SECONDS)
        assert rig.metrics.directory_servers_down.value == 1
        rig.hosts[0].trouble = None
        rig.later(RETRY_SECONDS)
        assert rig.search() == [Entry("uid=user1", {})]
    assert rig.metrics.directory_servers_down.value == 0
    assert events(caught, "directory_trouble") == events(caught, "directory_recovered") == ["ldap://h0"]


def test_trouble_with_one_request_is_not_the_servers(make_rig: MakeRig) -> None:
    """Somebody's password is checked elsewhere and that does not answer; all others go on."""
    rig = make_rig()
    rig.hosts[0].fail(ServerSilent("it does not answer in time"))
    assert is_trouble(rig.bind())
    rig.hosts[0].answer = None
    rig.settle()
    assert rig.bind() is True
    assert rig.metrics.directory_slow.value == 1


def test_what_was_idle_may_be_gone(make_rig: MakeRig) -> None:
    rig = make_rig()
    assert rig.bind() is True
    rig.hosts[0].lose()
    assert rig.bind() is True
    assert rig.search() == [Entry("uid=user1", {})]
    assert rig.metrics.directory_unreachable.value == 0


def test_what_is_new_and_gone_is_trouble(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.hosts[0].fail(ConnectionLost("it has hung up"))
    outcome = rig.bind()
    assert is_trouble(outcome)
    assert outcome.getErrorMessage() == "ldap://h0: it has hung up"
    assert rig.metrics.directory_unreachable.value == 1


def test_a_refusal_is_told_of_once_in_a_while(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.hosts[0].fail(OperationRefused("noSuchObject (32)"))
    with capturedLogs() as caught:
        for _ in range(3):
            assert is_trouble(rig.search())
            rig.settle()
        assert events(caught, "directory_refused") == ["ldap://h0"]
        rig.pump.now += REPEAT_SECONDS + 1
        assert is_trouble(rig.search())
        rig.settle()
        assert events(caught, "directory_refused") == ["ldap://h0"] * 2
    assert rig.metrics.directory_refused.value == 4
    assert rig.metrics.directory_servers_down.value == 0


def test_too_large_an_answer_is_no_servers_fault(make_rig: MakeRig) -> None:
    rig = make_rig(2)
    rig.hosts[0].fail(AnswerOverrun("the answer is too large"))
    assert rig.search().check(AnswerTooLarge)
    rig.settle()
    assert rig.metrics.directory_servers_down.value == 0
    assert rig.metrics.directory_refused.value == 1
    # It would be as large there, and only that connection is of no use any more.
    assert rig.hosts[1].requests == []
    rig.hosts[0].answer = None
    assert rig.bind() is True


def test_a_server_that_refuses_to_be_looked_at_is_down(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    rig.hosts[0].trouble = OperationRefused("LDAPMaximumRedirects")
    with capturedLogs() as caught:
        rig.directory.start()
        rig.pump.until(lambda: bool(rig.metrics.directory_servers_down.value))
    assert events(caught, "directory_trouble") == ["ldap://h0"]
    assert not any(event.get("log_failure") for event in caught)


def test_a_bug_is_trouble_too(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.hosts[0].fail(ZeroDivisionError("secret"))
    with capturedLogs() as caught:
        outcome = rig.search()
    assert is_trouble(outcome)
    assert "secret" not in outcome.getErrorMessage()
    assert [event["log_format"] for event in caught if event.get("log_failure")] == ["directory_crashed"]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ServerFailed("x"), "directory_unreachable"),
        (ServerSilent("x"), "directory_slow"),
        (ServerUntrusted("x"), "directory_untrusted"),
    ],
)
def test_failures_at_the_start_show(make_rig: MakeRig, error: Exception, name: str) -> None:
    rig = make_rig(start=False)
    rig.hosts[0].trouble = error
    with capturedLogs() as caught:
        rig.directory.start()
        rig.pump.until(lambda: bool(rig.metrics.directory_servers_down.value))
    assert events(caught, "directory_trouble") == ["ldap://h0"]
    assert getattr(rig.metrics, name).value == 1


def test_too_many_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(threads=1, waiting=2)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    searches = [rig.directory.search("(a=b)", []) for _ in range(5)]
    assert [search.called for search in searches] == [False] * 3 + [True] * 2
    assert all(is_trouble(rig.pump.outcome(search)) for search in searches[3:])
    go_on.set()
    assert [rig.pump.outcome(search) for search in searches[:3]] == [[Entry("uid=user1", {})]] * 3
    assert rig.metrics.directory_busy.value == 2
    assert rig.search() == [Entry("uid=user1", {})]


def test_lookups_of_recipients_keep_no_login_waiting(make_rig: MakeRig) -> None:
    """Anybody can cause those, as many as they like."""
    rig = make_rig(threads=1, waiting=2)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    lookups = [rig.directory.for_recipients.search("(a=b)", []) for _ in range(5)]
    assert [lookup.called for lookup in lookups] == [False] * 3 + [True] * 2
    wait_until(lambda: rig.hosts[0].requests, 10, "the first is being asked")
    rig.hosts[0].answer = None
    assert rig.search() == [Entry("uid=user1", {})]
    assert rig.bind() is True
    assert [lookup.called for lookup in lookups] == [False] * 3 + [True] * 2
    go_on.set()
    assert [rig.pump.outcome(lookup) for lookup in lookups[:3]] == [[Entry("uid=user1", {})]] * 3


def test_logins_keep_no_recipient_waiting(make_rig: MakeRig) -> None:
    rig = make_rig(threads=1, waiting=0)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    login = rig.directory.bind("uid=user1", "pw1")
    wait_until(lambda: rig.hosts[0].requests, 10, "it is being asked")
    rig.hosts[0].answer = None
    lookup = rig.directory.for_recipients.search("(a=b)", [])
    assert rig.pump.outcome(lookup) == [Entry("uid=user1", {})]
    go_on.set()
    assert rig.pump.outcome(login) is True


def test_nobody_waits_for_longer_than_the_limit(make_rig: MakeRig) -> None:
    rig = make_rig(threads=1)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    searches = [rig.directory.search(f"(a={number})", []) for number in range(3)]
    wait_until(lambda: rig.hosts[0].requests, 10, "the first is being asked")
    rig.pump.advance(SECONDS)
    assert all(is_trouble(rig.pump.outcome(search)) for search in searches)
    go_on.set()
    rig.settle()
    # Those that nobody waited for any more were not asked.
    assert len(rig.hosts[0].requests) == 1
    assert rig.metrics.directory_slow.value == 3


def test_who_gives_up_is_not_asked_for(make_rig: MakeRig) -> None:
    rig = make_rig(threads=1)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    first, second = (rig.directory.search(f"(a={number})", []) for number in range(2))
    second.addErrback(lambda failure: None)
    second.cancel()
    go_on.set()
    assert rig.pump.outcome(first) == [Entry("uid=user1", {})]
    rig.settle()
    assert rig.hosts[0].requests == [("search", "(a=0)")]


def test_no_server_is_blamed_for_lack_of_time(make_rig: MakeRig) -> None:
    rig = make_rig(threads=1)
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    first, second = (rig.directory.search(f"(a={number})", []) for number in range(2))
    wait_until(lambda: rig.hosts[0].requests, 10, "the first is being asked")
    rig.pump.now += SECONDS - ATTEMPT / 2 + 0.1
    go_on.set()
    assert rig.pump.outcome(first) == [Entry("uid=user1", {})]
    assert is_trouble(rig.pump.outcome(second))
    assert len(rig.hosts[0].requests) == 1
    assert rig.metrics.directory_servers_down.value == 0


def test_each_server_has_its_time(make_rig: MakeRig) -> None:
    rig = make_rig(2)
    rig.hosts[0].trouble = ServerSilent("no")
    rig.hosts[0].lose()
    rig.search()
    (connection,) = rig.hosts[1].connections
    assert connection.deadlines[-1] == rig.pump.now + ATTEMPT


def test_a_server_is_never_left_alone_for_long(make_rig: MakeRig) -> None:
    rig = make_rig()
    (connection,) = rig.hosts[0].connections
    assert connection.deadlines[0] - rig.pump.now + RETRY_SECONDS <= 5


def test_who_searches_and_who_logs_in_have_their_own_connections(make_rig: MakeRig) -> None:
    rig = make_rig()
    for _ in range(3):
        rig.search()
        rig.bind()
    searching, checking = rig.hosts[0].connections
    assert searching.who == ["cn=mta"]
    assert checking.who == ["uid=user1"] * 3


def test_connections_are_kept_as_long_as_they_are_fresh(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.bind()
    host: Host = rig.hosts[0]
    assert host.open == 2
    rig.later(TIDY_SECONDS)
    assert host.open == 2
    rig.bind()
    assert len(host.connections) == 2
    for _ in range(3):
        rig.later(TIDY_SECONDS)
    assert host.open == 0
    rig.bind()
    rig.pump.now += IDLE_SECONDS
    rig.bind()
    assert host.open == 1


def test_no_more_connections_than_threads(make_rig: MakeRig) -> None:
    rig = make_rig(threads=3, waiting=100)
    binds = [rig.directory.bind("uid=user1", "pw1") for _ in range(50)]
    assert all(rig.pump.outcome(bind) for bind in binds)
    assert rig.hosts[0].open <= 4


@pytest.mark.parametrize(
    ("dn", "password"),
    [("", "pw1"), ("uid=user1", ""), ("", ""), ("uid=user1", "p\0w"), ("uid\0", "p"), ("x", "\ud800")],
)
def test_unauthenticated_binds_are_not_even_asked_for(make_rig: MakeRig, dn: str, password: str) -> None:
    """RFC 4513 §5.1.2."""
    rig = make_rig()
    assert rig.bind(dn, password) is False
    assert rig.hosts[0].requests == []


def test_no_filter_has_a_nul(make_rig: MakeRig) -> None:
    rig = make_rig()
    assert rig.search("(uid=\0)") == []
    assert rig.hosts[0].requests == []


def test_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(threads=2)
    go_on = threading.Event()
    rig.search()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    searches = [rig.directory.search("(a=b)", []) for _ in range(4)]
    wait_until(lambda: len(rig.hosts[0].requests) == 3, 10, "two are being asked")
    ended = rig.directory.stop()
    assert all(is_trouble(rig.pump.outcome(search)) for search in searches)
    # Whoever was waiting for an answer wakes up.
    assert rig.hosts[0].open == 0
    go_on.set()
    assert rig.pump.outcome(ended) is None
    assert is_trouble(rig.search())
    assert rig.pump.outcome(rig.directory.stop()) is None


def test_stopped_without_waiting_for_a_thread_that_hangs(make_rig: MakeRig) -> None:
    rig = make_rig()
    go_on = threading.Event()
    rig.hosts[0].answer = lambda: go_on.wait(30) and None
    rig.directory.search("(a=b)", []).addErrback(lambda failure: None)
    wait_until(lambda: rig.hosts[0].requests, 10, "it is being asked")
    ended = rig.directory.stop()
    rig.pump.advance(60)
    assert rig.pump.outcome(ended) is None
    go_on.set()
