"""Certificates that change while the server runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tls.handshakes import Visitor
from tls.watching import DAY, INTERVAL, Watched
from twisted.internet.defer import Deferred

from mtatwist.tls import pairs
from mtatwist.tls.keypair import CertificateError
from mtatwist.tls.policy import TICKET_SECONDS, Policy


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.stop()


def test_what_is_shown_is_said_at_the_start(watched: Watched) -> None:
    (loaded,) = watched.events
    assert loaded["event"] == "certificate_loaded"
    assert loaded["names"] == ["mta.test"]
    assert loaded["key"] == "mta.test.certificate"


def test_new_sessions_see_the_new_certificate(watched: Watched) -> None:
    before = Visitor(watched.factory)
    serial = watched.said("certificate_loaded")[0]["serial"]
    watched.issue(host="new.test")
    assert watched.seen() == "mta.test"
    watched.pass_time(INTERVAL)
    assert watched.seen() == "new.test"
    # One whose handshake had begun goes on as it began, whatever becomes of the old contexts.
    gc.collect()
    assert before.shake_hands().saw == "mta.test"
    assert watched.metrics.tls_reloads.value == 1
    assert watched.said("certificate_loaded")[1]["serial"] != serial


def test_it_is_read_at_once_when_asked(watched: Watched) -> None:
    watched.issue(host="new.test")
    watched.watch.reload()
    assert watched.seen() == "new.test"
    # The timer goes on as ever.
    watched.issue(host="newer.test")
    watched.pass_time(INTERVAL)
    assert watched.seen() == "newer.test"
    assert watched.said("certificates_unchanged") == []
    watched.watch.reload()
    assert len(watched.said("certificates_unchanged")) == 1


def test_asked_while_it_is_looking_it_looks_again(watched: Watched) -> None:
    watched.held = held = Deferred()
    watched.pass_time(INTERVAL)
    watched.watch.reload()
    watched.watch.reload()
    watched.issue(host="new.test")
    watched.held = None
    held.callback(None)
    watched.pass_time(1)
    assert watched.seen() == "new.test"


def test_one_that_is_merely_touched_is_no_news(watched: Watched) -> None:
    os.utime(watched.files().certificate, (1, 1))
    watched.pass_time(INTERVAL)
    assert len(watched.events) == 1
    assert watched.metrics.tls_reloads.value == 0


def test_a_pair_that_is_written_one_after_the_other_waits_for_its_second_half(watched: Watched) -> None:
    """certbot replaces two links: between them nothing fits, and nobody needs to hear of that."""
    files = watched.files()
    key = files.key.read_bytes()
    watched.issue(host="new.test")
    new_key = files.key.read_bytes()
    files.key.write_bytes(key)
    watched.pass_time(INTERVAL)
    assert watched.seen() == "mta.test"
    assert len(watched.events) == 1
    files.key.write_bytes(new_key)
    watched.pass_time(INTERVAL)
    assert watched.seen() == "new.test"
    assert watched.metrics.tls_reloads_failed.value == 0


def test_a_broken_pair_changes_nothing_and_is_told_of_once(watched: Watched) -> None:
    watched.files().certificate.write_text("nonsense")
    watched.pass_time(20 * INTERVAL)
    assert watched.seen() == "mta.test"
    (told,) = watched.said("certificate_refused")
    assert told["key"] == "mta.test.certificate"
    assert "is not a certificate in PEM form" in told["reason"]
    assert told["reason"].endswith("the server goes on with what it has read before")
    assert watched.metrics.tls_reloads_failed.value == 1
    # Another fault is another matter, and so is somebody who asks.
    watched.files().certificate.unlink()
    watched.pass_time(20 * INTERVAL)
    assert len(watched.said("certificate_refused")) == 2
    watched.watch.reload()
    assert len(watched.said("certificate_refused")) == 3
    watched.issue(host="new.test")
    watched.pass_time(INTERVAL)
    assert watched.seen() == "new.test"


def test_a_key_we_may_not_read_any_more(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has given its privileges away since the start."""

    def forbidden(files: Any) -> Any:
        raise CertificateError(files.private_key_key, f"{files.private_key}: Permission denied", forbidden=True)

    watched.issue(host="new.test")
    monkeypatch.setattr(pairs, "read", forbidden)
    watched.pass_time(5 * INTERVAL)
    (told,) = watched.said("certificate_refused")
    assert "the user the server runs as may not read it" in told["reason"]
    assert watched.seen() == "mta.test"


def test_files_that_can_be_read_no_more_are_told_of_soon_and_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have not changed, but the process that read them was root's."""

    def locked(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(pairs.os, "open", locked)
    watched.pass_time(5 * INTERVAL)
    assert [event["key"][9:] for event in watched.said("certificate_unreadable")] == ["certificate", "private_key"]
    assert "restart after each renewal" in watched.said("certificate_unreadable")[1]["reason"]
    assert watched.metrics.tls_reloads_failed.value == 0


def test_a_broken_pair_does_not_keep_the_others_from_being_renewed(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "one.test", "two.test", "three.test")
    watched.issue("one.test", host="new.one.test")
    watched.files("two.test").key.write_text("nonsense")
    watched.issue("three.test", host="new.three.test")
    watched.pass_time(3 * INTERVAL)
    assert watched.seen() == "new.one.test"
    assert watched.seen("two.test") == "two.test"
    assert watched.seen("new.three.test") == "new.three.test"
    watched.stop()


def test_authorities_of_clients_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    first = Watched(tmp_path / "before")
    first.stop()
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(first.authority.file.read_bytes())
    watched = Watched(tmp_path, policy=Policy("1.2", "require", str(authorities)))
    ours = watched.files()
    assert watched.seen(shown=ours, newest=0x303) == "refused"
    authorities.write_bytes(watched.authority.file.read_bytes())
    watched.pass_time(INTERVAL)
    assert watched.seen(shown=ours, newest=0x303) == "mta.test"
    assert watched.seen(shown=first.files(), newest=0x303) == "refused"
    authorities.write_text("nonsense")
    watched.pass_time(3 * INTERVAL)
    assert [event["key"] for event in watched.said("certificate_refused")] == ["tls.client_ca_file"]
    assert watched.seen(shown=ours, newest=0x303) == "mta.test"
    watched.stop()


def test_a_round_that_fails_is_followed_by_the_next(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pairs.Pairs, "look", lambda *arguments, **settings: 1 / 0)
        watched.pass_time(3 * INTERVAL)
    assert watched.metrics.tls_watch_errors.value == 3
    watched.issue(host="new.test")
    watched.pass_time(INTERVAL)
    assert watched.seen() == "new.test"


def test_ticket_keys_do_not_get_old(watched: Watched) -> None:
    """A context that nothing replaces is replaced all the same."""
    first = watched.watch.server._contexts
    watched.pass_time(TICKET_SECONDS - INTERVAL)
    assert watched.watch.server._contexts is first
    watched.pass_time(2 * INTERVAL)
    assert watched.watch.server._contexts is not first
    assert watched.metrics.tls_reloads.value == 0


def test_its_end_is_warned_of_three_weeks_ahead_and_once_a_day(tmp_path: Path) -> None:
    watched = Watched(tmp_path, days=23)
    assert watched.metrics.tls_days_left.value == 22
    assert watched.said("certificate_expires") == []
    watched.now += 2 * DAY
    watched.pass_time(DAY)
    assert [event["days_left"] for event in watched.said("certificate_expires")] == [20]
    watched.pass_time(2 * DAY)
    assert [event["days_left"] for event in watched.said("certificate_expires")] == [20, 19, 18]
    assert watched.metrics.tls_days_left.value == 17
    watched.issue(days=90)
    watched.pass_time(2 * DAY)
    assert len(watched.said("certificate_expires")) == 3
    assert watched.metrics.tls_days_left.value > 80
    watched.stop()


def test_the_first_to_end_counts(tmp_path: Path) -> None:
    watched = Watched(tmp_path, "one.test", "two.test", days=50)
    watched.issue("two.test", days=30)
    watched.pass_time(INTERVAL)
    assert watched.metrics.tls_days_left.value == 29
    watched.stop()


@pytest.mark.parametrize(("days", "later", "words"), [(-1, 0, "has expired on"), (90, -1000, "is not valid before")])
def test_one_that_is_not_valid_is_shown_and_complained_of(
    tmp_path: Path, days: float, later: float, words: str
) -> None:
    watched = Watched(tmp_path, days=days)
    watched.now += later * DAY
    watched.pass_time(3 * DAY)
    assert watched.seen() == "mta.test"
    assert len(watched.said("certificate_invalid")) >= 3
    assert words in watched.said("certificate_invalid")[-1]["reason"]
    watched.stop()


def test_what_is_ours_to_make_is_made_before_each_look(tmp_path: Path) -> None:
    looks: list[int] = []

    def prepare() -> None:
        looks.append(1)
        if len(looks) > 2:
            raise CertificateError("tls.certificate", "the disk is full")

    watched = Watched(tmp_path, prepare=prepare)
    watched.pass_time(10 * INTERVAL)
    assert len(looks) == 11
    assert [event["reason"][:16] for event in watched.said("certificate_refused")] == ["the disk is full"]
    watched.stop()
