"""Who gets mail at our domains, over SMTP and to a next hop: by a real directory, by files, on good and bad days."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rigs.client import Client, Reply
from rigs.mta import Mta, StartFailed, relaying_to
from rigs.processes import wait_until
from rigs.sink import Sink
from rigs.slapd import GROUPS, PEOPLE, SUFFIX, Slapd, user_dn

MakeMta = Callable[..., Mta]

CONTENT = b"Subject: x\r\n\r\nhello\r\n"
GROUP = "(&(objectClass=groupOfNames)(mail={address}))"

MORE = f"""\
dn: uid=gone,{PEOPLE}
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: gone
cn: gone
sn: S
mailLocalAddress: gone@example.org
mailLocalAddress: going@example.org
mailRoutingAddress: gone@elsewhere.test

dn: uid=loop,{PEOPLE}
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: loop
cn: loop
sn: S
mailLocalAddress: loop@example.org
mailRoutingAddress: pool@example.org

dn: uid=pool,{PEOPLE}
objectClass: inetOrgPerson
objectClass: inetLocalMailRecipient
uid: pool
cn: pool
sn: S
mailLocalAddress: pool@example.org
mailRoutingAddress: loop@example.org

dn: cn=unique,{GROUPS}
objectClass: groupOfUniqueNames
objectClass: extensibleObject
cn: unique
mail: unique@example.org
uniqueMember: {user_dn("user3")}
"""
"""Beside the rig's people: two addresses that forward, two that do so to each other, and another kind of group."""


@pytest.fixture(scope="module")
def ldap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slapd]:
    """A directory that nobody stops for good."""
    slapd = Slapd(tmp_path_factory.mktemp("ldap"))
    slapd._add(1, MORE)
    with slapd:
        yield slapd


def asking(ldap: Slapd, sink: Sink, **settings: Any) -> dict[str, Any]:
    """A server for example.org that asks the directory who is there, and hands everything to the sink."""
    asked = ldap.settings(**{"base_dn": SUFFIX, "recipient_filter": "(mail={address})", "timeout": "3s", **settings})
    return relaying_to(sink.port, relay={"domains": ["example.org"], "networks": []}, **{"auth.ldap": asked})


def rcpt(client: Client, address: str) -> Reply:
    return client.command(f"RCPT TO:<{address}>")


def answers(mta: Mta, *addresses: str) -> dict[str, str]:
    """Code and enhanced code of the reply to each recipient."""
    with Client(mta.address()) as client:
        client.ehlo()
        client.expect(250, "MAIL FROM:<a@client.test>")
        return {address: str(rcpt(client, address))[:9] for address in addresses}


def send(mta: Mta, *to: str) -> None:
    with Client(mta.address()) as client:
        client.ehlo()
        assert client.transaction("a@client.test", to, CONTENT).code == 250


def receivers(mta: Mta, sink: Sink, *to: str) -> list[str]:
    """Who gets a message to these recipients."""
    sink.arrivals.clear()
    send(mta, *to)
    wait_until(lambda: mta.queued() == 0, 20, "the queue is empty")
    return sorted(path for arrival in sink.arrivals for path in arrival.forward_paths)


def logged(mta: Mta, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The events of this kind, once there are so many."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [each for each in mta.events() if each["event"] == event]
        return len(found) >= count

    wait_until(there, 10, lambda: f"{count} {event} in the log")
    assert len(found) == count
    return found


def test_who_is_unknown_is_refused(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    with make_mta(asking(ldap, sink)) as mta:
        known = ("user1@example.org", "USER1@Example.org", "user1+news@example.org", "alias2@example.org")
        hostile = ("*@example.org", '"x)(mail=*"@example.org', '"\\\\2a"@example.org', "user1\\2a@example.org")
        got = answers(mta, *known, "nobody@example.org", "postmaster@example.org", "x@away.test", *hostile)
        assert [got[address] for address in known] == ["250 2.1.5"] * 4
        assert got["nobody@example.org"] == "550 5.1.1"
        assert got["postmaster@example.org"] == "250 2.1.5"
        assert got["x@away.test"] == "550 5.7.1"
        assert [got[address][:3] for address in hostile] == ["550", "550", "550", "501"]
        # Two spellings of one address make one copy.
        assert receivers(mta, sink, *known) == sorted(set(known) - {"USER1@Example.org"})


def test_strangers_make_no_maildirs(make_mta: MakeMta, ldap: Slapd, tmp_path: Path) -> None:
    """Whoever exists without the detail gets the mail with it, in one Maildir, however the address is written."""
    asked = ldap.settings(base_dn=SUFFIX, recipient_filter="(mail={address})")
    config = relaying_to(1, relay={"domains": ["example.org"], "networks": []}, **{"auth.ldap": asked})
    boxes = tmp_path / "boxes"
    config["route"] = [{"domain": "example.org", "transport": "maildir", "next_hop": str(boxes / "{local}")}]
    spellings = ["user2", "USER2", "User2+random0", '"user2+a b"', '"user2+../x"', "user2+"]
    with make_mta(config) as mta:
        for local in spellings:
            send(mta, f"{local}@example.org")
        wait_until(lambda: mta.queued() == 0, 20, "the queue is empty")
    assert os.listdir(boxes) == ["user2"]
    assert len(os.listdir(boxes / "user2" / "new")) == len(spellings)


def test_questions_are_remembered(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    with make_mta(asking(ldap, sink)) as mta:
        answers(mta, "user5@example.org", "nobody5@example.org")
        before = ldap.operations()
        for _ in range(3):
            answers(mta, "user5@example.org", "nobody5@example.org")
        assert ldap.operations() == before


def test_groups_of_the_directory(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    """One group is a member of the other; the envelope and the log have those who get it."""
    with make_mta(asking(ldap, sink, alias_filter=GROUP)) as mta:
        assert receivers(mta, sink, "everyone@example.org", "user1@example.org") == [
            "user0@example.org",
            "user1@example.org",
            "user2@example.org",
        ]
        (event,) = logged(mta, "accepted")
        assert event["named"] == ["everyone@example.org", "user1@example.org"]
        assert sorted(event["forward_paths"])[0] == "user0@example.org"
        assert b"for <" not in sink.arrivals[0].content.split(b"\r\n\r\n")[0]
        assert receivers(mta, sink, "contact@example.org") == ["user2@example.org"]
        assert b"for <contact@example.org>" in sink.arrivals[0].content


def test_forwarding_by_the_directory(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    """To addresses elsewhere, too: who sends to it is not asked to be one of us."""
    config = asking(ldap, sink, alias_filter="(mailLocalAddress={address})", alias_attributes=["mailRoutingAddress"])
    with make_mta(config) as mta:
        assert receivers(mta, sink, "gone@example.org", "going+x@example.org") == ["gone@elsewhere.test"]
        assert answers(mta, "loop@example.org") == {"loop@example.org": "451 4.4.6"}
        assert [event["address"] for event in logged(mta, "alias_loop")] == ["loop@example.org"]


def test_members_in_another_attribute(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    asked = asking(ldap, sink, alias_filter="(mail={address})", member_attributes=["uniqueMember"])
    with make_mta(asked) as mta:
        assert receivers(mta, sink, "unique@example.org") == ["user3@example.org"]
        # This one has its members in the attribute "member", so that it is just an address.
        assert receivers(mta, sink, "sales@example.org") == ["sales@example.org"]


def test_members_that_do_not_count(make_mta: MakeMta, sink: Sink, ldap: Slapd) -> None:
    asked = asking(ldap, sink, alias_filter=GROUP, member_filter="(&(objectClass=inetOrgPerson)(entryDN={dn}))")
    with make_mta(asked) as mta:
        assert receivers(mta, sink, "everyone@example.org") == ["user0@example.org"]


@pytest.mark.parametrize("trouble", ["stopped", "hung"])
def test_a_directory_that_is_away_costs_no_mail(make_mta: MakeMta, sink: Sink, ldap: Slapd, trouble: str) -> None:
    """Whom it is asked about is told to come again; others are not held up; and it needs no restart of ours."""
    with make_mta(asking(ldap, sink)) as mta:
        assert answers(mta, "user1@example.org") == {"user1@example.org": "250 2.1.5"}
        if trouble == "stopped":
            ldap.stop()
        else:
            ldap.hang()
        try:
            waiting = Client(mta.address())
            waiting.ehlo()
            waiting.expect(250, "MAIL FROM:<a@client.test>")
            waiting.send(b"RCPT TO:<user2@example.org>\r\n")
            # What is remembered, and postmaster.
            assert receivers(mta, sink, "user1@example.org", "postmaster@example.org") == [
                "postmaster@example.org",
                "user1@example.org",
            ]
            assert str(waiting.reply())[:9] == "451 4.4.3"
            waiting.close()
        finally:
            if trouble == "stopped":
                ldap.start()
            else:
                ldap.go_on()
        wait_until(
            lambda: answers(mta, "user2@example.org") == {"user2@example.org": "250 2.1.5"}, 20, "the directory is back"
        )


def with_files(sink: Sink, directory: Path, **relay: Any) -> dict[str, Any]:
    """A server for example.org, to whose [relay] these are added."""
    return relaying_to(sink.port, relay={"domains": ["example.org"], "networks": [], **relay})


def write(file: Path, text: str) -> None:
    """As editors do it."""
    other = file.with_suffix(".new")
    other.write_text(text)
    os.replace(other, file)


def test_files_are_read_again_while_mail_flows(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    aliases, people = tmp_path / "aliases", tmp_path / "people"
    aliases.write_text("sales: ann, dan@away.test\n")
    people.write_text("ann\n")
    with make_mta(with_files(sink, tmp_path, aliases=str(aliases), recipients=str(people))) as mta:
        assert answers(mta, "ann+x@example.org", "bob@example.org") == {
            "ann+x@example.org": "250 2.1.5",
            "bob@example.org": "550 5.1.1",
        }
        assert receivers(mta, sink, "sales@example.org", "ann@example.org") == ["ann@example.org", "dan@away.test"]
        write(aliases, "sales: bob\n")
        write(people, "ann\nbob\n")
        wait_until(lambda: receivers(mta, sink, "sales@example.org") == ["bob@example.org"], 20, "they are read again")
        # What is broken by then leaves the last that was whole in force.
        write(aliases, "sales: ann\nsupport: |/bin/sh\n")
        wait_until(
            lambda: (
                answers(mta, "sales@example.org") and any(event["event"] == "file_refused" for event in mta.events())
            ),
            20,
            "the log tells of it",
        )
        assert receivers(mta, sink, "sales@example.org") == ["bob@example.org"]
        (event,) = logged(mta, "file_refused")
        assert event["path"] == str(aliases)
        assert f"{aliases}:2: " in event["reason"]
        assert "is a command, not an address" in event["reason"]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("aliases", "a: b\nbroken\n", ":2: is not an alias"),
        ("recipients", "ann\nbob@away.test\n", ':2: "away.test" is not one of relay.domains'),
        ("aliases", None, ": cannot be read: No such file or directory"),
    ],
)
def test_a_broken_file_at_the_start(
    make_mta: MakeMta, sink: Sink, tmp_path: Path, key: str, text: str | None, words: str
) -> None:
    file = tmp_path / "table"
    if text is not None:
        file.write_text(text)
    mta = make_mta(with_files(sink, tmp_path, **{key: str(file)}))
    with pytest.raises(StartFailed, match="exit code 78"):
        mta.start()
    assert mta.process.stderr.read_text().splitlines()[-1].endswith(f"relay.{key}: {file}{words}") or (
        f"relay.{key}: {file}{words}" in mta.process.stderr.read_text()
    )


def test_wishes_about_reports_go_with_the_members(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """A member that fails is reported by the address that the sender knows."""
    (tmp_path / "aliases").write_text("sales: ann, gone\n")
    sink.policy = lambda stage, what: "550 5.1.1 no" if what == "gone@example.org" else None
    with make_mta(with_files(sink, tmp_path, aliases=str(tmp_path / "aliases"))) as mta:
        with Client(mta.address()) as client:
            client.ehlo()
            client.expect(250, "MAIL FROM:<a@client.test> ENVID=x1")
            client.expect(250, "RCPT TO:<Sales+q3@example.org> NOTIFY=FAILURE")
            client.expect(354, "DATA")
            client.send(CONTENT + b".\r\n")
            assert client.reply().code == 250
        arrivals = sink.wait_for(2)
        (report,) = [arrival for arrival in arrivals if arrival.reverse_path == ""]
        assert report.forward_paths == ("a@client.test",)
        assert b"Original-Recipient: rfc822; Sales+q3@example.org\r\n" in report.content
        assert b"Final-Recipient: rfc822; gone@example.org\r\n" in report.content


def test_many_recipients_of_one_message(make_mta: MakeMta, sink: Sink, tmp_path: Path) -> None:
    """Groups have their own limit, and the recipients of the envelope theirs."""
    (tmp_path / "aliases").write_text(
        "".join(
            f"{name}: {', '.join(f'{name}{n}@away.test' for n in range(count))}\n"
            for name, count in (("all", 1000), ("more", 1001), ("few", 2))
        )
    )
    config = with_files(sink, tmp_path, aliases=str(tmp_path / "aliases"))
    config["limits"]["recipients"] = 3
    with make_mta(config) as mta:
        addresses = ("all@example.org", "more@example.org", "few@example.org", "ann@example.org", "bob@example.org")
        assert list(answers(mta, *addresses, "eve@example.org").values()) == [
            "250 2.1.5",
            "451 4.3.5",
            "452 4.5.3",
            "250 2.1.5",
            "250 2.1.5",
            "452 4.5.3",
        ]
        assert len(receivers(mta, sink, "all@example.org")) == 1000


def test_a_device_sends_from_its_addresses_only(make_mta: MakeMta, sink: Sink) -> None:
    config = relaying_to(sink.port, relay={"domains": ["example.org"], "networks": []})
    config["relay.device"] = [
        {"network": "127.0.0.0/8", "senders": ["@lab.example.org"]},
        {"network": "127.0.0.1", "senders": ["printer@example.org"]},
    ]
    with make_mta(config) as mta, Client(mta.address()) as client:
        client.ehlo()
        for sender in ("ceo@example.org", "", "x@lab.example.org", "printer@away.test"):
            assert str(client.command(f"MAIL FROM:<{sender}>"))[:9] == "553 5.7.1"
        # A device of its kind: its lines end as they like.
        client.expect(250, "MAIL FROM:<Printer@Example.org>")
        client.expect(250, "RCPT TO:<someone@away.test>")
        client.expect(354, "DATA")
        client.send(b"Subject: scan\n\ndone\n\r\n.\r\n")
        assert client.reply().code == 250
        (arrival,) = sink.wait_for(1)
        assert (arrival.reverse_path, arrival.forward_paths) == ("Printer@Example.org", ("someone@away.test",))
        refused = logged(mta, "device_refused", 4)
        assert [event["reverse_path"] for event in refused] == [
            "ceo@example.org",
            "",
            "x@lab.example.org",
            "printer@away.test",
        ]
