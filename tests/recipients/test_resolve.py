"""Who gets a recipient's mail: unknown users, details, aliases and groups, loops and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ldap3.operation.search import MATCH_EQUAL, parse_filter
from recipients.rig import SEARCHES, Entry, FakeDirectory, Rig, forwarding, user
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from mtatwist.interfaces import AnswerTooLarge, DirectoryTrouble
from mtatwist.recipients.directory import ABSENT_SECONDS, UNDER_WAY
from mtatwist.recipients.resolve import AT_ONCE, CANNOT_TELL, DEPTH, LOOP, PATIENCE, TOO_LARGE, UNKNOWN
from mtatwist.smtp.address import Address, AddressError, parse_path
from mtatwist.smtp.reply import Reply


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@here.test", ["ann@here.test"]),
        ("ANN@Here.test", ["ANN@Here.test"]),
        ("ann+news@here.test", ["ann+news@here.test"]),
        ("ann+a+b@here.test", ["ann+a+b@here.test"]),
        ("bob+x@here.test", ["bob+x@here.test"]),
        ("bob@here.test", 550),
        ("bob+y@here.test", 550),
        ("+ann@here.test", 550),
        ("annie@here.test", 550),
        ("ann@also.test", 550),
    ],
)
@pytest.mark.parametrize("source", ["file", "directory"])
def test_who_is_known(source: str, address: str, expected: list[str] | int) -> None:
    """The whole address is tried first, then without its detail; case does not matter, and is kept."""
    people = ("ann@here.test", "bob+x@here.test")
    if source == "file":
        rig = Rig(listed="\n".join(people))
    else:
        rig = Rig(directory=FakeDirectory({key: value for one in people for key, value in user(one).items()}))
    assert rig.get(address) == expected
    assert rig.metrics.recipients_unknown.value == (expected == 550)


def test_without_a_delimiter_nothing_is_a_detail() -> None:
    assert Rig(listed="ann", delimiter="").get("ann+x@here.test") == 550


def test_file_and_directory_know_people_together() -> None:
    directory = FakeDirectory(user("bob@here.test"))
    rig = Rig(listed="ann", directory=directory)
    assert rig.get("ann@here.test") == ["ann@here.test"]
    assert rig.get("bob@here.test") == ["bob@here.test"]
    assert rig.get("eve@here.test") == 550
    assert "(mail=ann@here.test)" not in directory.asked


def test_with_aliases_alone_everybody_else_exists() -> None:
    rig = Rig(aliases="sales: ann")
    assert rig.get("anybody@here.test") == ["anybody@here.test"]
    assert rig.get("sales@here.test") == ["ann@here.test"]


ALIASES = """\
sales: ann, bob@also.test, carol@away.test
team: sales, dan, ann
dan: dan, dan@away.test
old: ann
old+x: bob@here.test
foreign: x@away.test, X@away.test, y@AWAY.test, y@away.test
ghost: nobody
half: nobody, ann
"""
PEOPLE = "ann\nbob\ndan\n"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("sales@here.test", ["ann@here.test", "bob@also.test", "carol@away.test"]),
        ("SALES@also.test", ["ann@also.test", "bob@also.test", "carol@away.test"]),
        ("sales+x@here.test", ["ann@here.test", "bob@also.test", "carol@away.test"]),
        (
            "team@here.test",
            ["ann@here.test", "bob@also.test", "carol@away.test", "dan@away.test", "dan@here.test"],
        ),
        ("dan@here.test", ["dan@away.test", "dan@here.test"]),
        ("dan+x@here.test", ["dan@away.test", "dan@here.test"]),
        ("old@here.test", ["ann@here.test"]),
        ("old+x@here.test", ["bob@here.test"]),
        ("old+y@here.test", ["ann@here.test"]),
        ("foreign@here.test", ["X@away.test", "x@away.test", "y@away.test"]),
        ("ghost@here.test", 550),
        ("half@here.test", ["ann@here.test"]),
    ],
)
def test_aliases(address: str, expected: list[str] | int) -> None:
    assert Rig(aliases=ALIASES, listed=PEOPLE).get(address) == expected


def test_a_member_that_nobody_knows_is_told_of() -> None:
    with capturedLogs() as events:
        Rig(aliases=ALIASES, listed=PEOPLE).get("half@here.test")
    (event,) = (event for event in events if event["log_format"] == "alias_member_unknown")
    assert (event["alias"], event["member"]) == ("half@here.test", "nobody@here.test")


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        ("a: a", ["a@here.test"]),
        ("a: a, b", ["a@here.test", "b@here.test"]),
        ("a: a+x", ["a+x@here.test"]),
        ("a: b\nb: a", LOOP.code),
        ("a: b\nb: c\nc: b", LOOP.code),
        ("a: b, c\nb: c\nc: b", LOOP.code),
        ("a: b\nb: a, c@away.test", ["c@away.test"]),
        ("a: b, c\nb: d\nc: d\nd: e@away.test", ["e@away.test"]),
    ],
)
def test_loops_end(aliases: str, expected: list[str] | int) -> None:
    """Who stands in its own alias gets the mail; what leads out of a loop does, too; a mere loop is none."""
    assert Rig(aliases=aliases).get("a@here.test") == expected


def test_a_loop_is_no_fault_of_the_senders_and_is_told_of() -> None:
    rig = Rig(aliases="a: b\nb: a")
    with capturedLogs() as events:
        (reply,) = rig.begin("a@here.test")
    assert isinstance(reply, Reply)
    assert (reply.code, reply.enhanced) == (451, "4.4.6")
    assert [event["address"] for event in events if event["log_format"] == "alias_loop"] == ["a@here.test"]
    assert rig.metrics.aliases_unusable.value == 1


@pytest.mark.parametrize(("length", "fits"), [(DEPTH, True), (DEPTH + 1, False)])
def test_depth(length: int, fits: bool) -> None:
    aliases = "".join(f"a{number}: a{number + 1}\n" for number in range(length))
    got = Rig(aliases=aliases).get("a0@here.test")
    assert got == ([f"a{length}@here.test"] if fits else 451)


@pytest.mark.parametrize(("members", "fits"), [(5, True), (6, False)])
def test_expansion(members: int, fits: bool) -> None:
    rig = Rig(aliases="all: " + ", ".join(f"u{number}" for number in range(members)), expansion=5)
    (answer,) = rig.begin("all@here.test")
    if fits:
        assert isinstance(answer, list) and len(answer) == 5
    else:
        assert answer is TOO_LARGE


def test_a_bomb_is_found_before_it_goes_off() -> None:
    """Ten levels of ten members each would be ten thousand million."""
    aliases = "".join(
        f"x{level}-{number}: {', '.join(f'x{level + 1}-{next}' for next in range(100))}\n"
        for level in range(9)
        for number in range(100)
    )
    assert Rig(aliases=aliases).get("x0-0@here.test") == sorted(f"x9-{number}@here.test" for number in range(100))


NAMES = st.sampled_from("abcdef")


@given(st.dictionaries(NAMES, st.lists(NAMES | st.just("out@away.test"), min_size=1, max_size=4), max_size=6))
def test_any_aliases_come_to_an_end(table: dict[str, list[str]]) -> None:
    """Those get it that can be reached, each once; and if nobody can be, the sender may try again."""
    rig = Rig(aliases="\n".join(f"{name}: {', '.join(members)}" for name, members in table.items()))
    reached: set[str] = set()
    seen: set[str] = set()
    steps: list[tuple[str, str]] = [("a", "")]
    while steps:
        name, parent = steps.pop()
        if name == "out@away.test":
            reached.add(name)
        elif name not in table or name == parent:
            reached.add(f"{name}@here.test")
        elif name not in seen:
            seen.add(name)
            steps += [(member, name) for member in table[name]]
    assert rig.get("a@here.test") == (sorted(reached) or 451)


# Postmaster (RFC 5321 §4.5.1).


@pytest.mark.parametrize(
    ("aliases", "expected"),
    [
        ("x: y", ["admin@here.test"]),
        ("postmaster: ann", ["ann@also.test"]),
        ("postmaster@here.test: ann", ["admin@here.test"]),
        ("admin: ann, x@away.test", ["ann@here.test", "x@away.test"]),
        ("postmaster: a\na: postmaster", ["admin@here.test"]),
        ("postmaster: ghost", ["ghost@also.test"]),
        ("postmaster: postmaster", ["admin@here.test"]),
    ],
)
def test_postmaster_is_never_refused(aliases: str, expected: list[str]) -> None:
    assert Rig(aliases=aliases, listed="ann").get("Postmaster@also.test") == expected


@pytest.mark.parametrize("address", ["postmaster@here.test", "admin@here.test"])
def test_nor_when_the_directory_is_away(address: str) -> None:
    directory = FakeDirectory()
    directory.trouble = True
    rig = Rig(aliases="admin: ann", directory=directory)
    assert rig.get(address) == ["ann@here.test"]
    assert rig.metrics.recipients_unchecked.value == 0


def test_postmaster_as_a_member() -> None:
    assert Rig(aliases="abuse: postmaster", listed="ann").get("abuse@also.test") == ["admin@here.test"]


def test_a_postmaster_that_is_called_so_is_itself() -> None:
    rig = Rig(listed="ann", postmaster="postmaster@here.test")
    assert rig.get("postmaster@here.test") == ["postmaster@here.test"]
    assert rig.get("postmaster@also.test") == ["postmaster@here.test"]


# What the sender asked of reports (RFC 3461 §5.2.7).


def test_members_have_the_senders_wishes() -> None:
    rig = Rig(aliases="sales: ann, bob")
    for recipient in rig.resolve("sales@here.test", NOTIFY="NEVER", ORCPT="rfc822;them@there.test"):
        assert recipient.parameters == {"NOTIFY": "NEVER", "ORCPT": "rfc822;them@there.test"}


@pytest.mark.parametrize(
    ("named", "orcpt"),
    [
        ("sales@here.test", "rfc822;sales@here.test"),
        ("sales+x@here.test", "rfc822;sales+2Bx@here.test"),
        ("sälës@here.test", "utf-8;sälës@here.test"),
    ],
)
def test_the_original_recipient_is_the_one_that_was_named(named: str, orcpt: str) -> None:
    rig = Rig(aliases="sales: ann\nsälës: ann")
    (recipient,) = rig.resolve(named)
    assert recipient.address == "ann@here.test"
    assert recipient.parameters == {"ORCPT": orcpt}


def test_who_is_nobodys_alias_stays_as_it_is() -> None:
    rig = Rig(aliases="sales: ann")
    (recipient,) = rig.resolve("bob@here.test", NOTIFY="NEVER")
    assert recipient.parameters == {"NOTIFY": "NEVER"}
    assert rig.metrics.recipients_expanded.value == 0


# The directory.


def test_forwarding_and_groups_of_the_directory() -> None:
    directory = FakeDirectory(
        {
            **user("ann@here.test"),
            **user("bob@here.test"),
            **forwarding("ann@here.test", "ann@away.test", "ann"),
            "(alias=team@here.test)": [Entry("cn=team", {"member": ["uid=ann", "uid=nomail", "uid=bob,o=\\2a(x)"]})],
            "(entryDN=uid=ann)": [Entry("uid=ann", {"mail": ["ann@here.test", "ann@old.test"]})],
            "(entryDN=uid=nomail)": [Entry("uid=nomail")],
        }
    )
    rig = Rig(directory=directory)
    assert rig.get("ann@here.test") == ["ann@away.test", "ann@here.test"]
    directory.answers[r"(entryDN=uid=bob,o=\5c2a\28x\29)"] = [Entry("uid=bob", {"othermail": ["bob@here.test"]})]
    assert rig.get("team@here.test") == ["ann@away.test", "ann@here.test", "bob@here.test"]
    assert r"(|(entryDN=uid=ann)(entryDN=uid=nomail)(entryDN=uid=bob,o=\5c2a\28x\29))" in directory.asked


def test_what_a_file_calls_an_alias_the_directory_is_not_asked() -> None:
    directory = FakeDirectory({**user("bob@here.test"), **forwarding("sales@here.test", "eve@away.test")})
    assert Rig(aliases="sales: bob", directory=directory).get("sales@here.test") == ["bob@here.test"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("|/bin/sh", 550),
        ("/etc/passwd", 550),
        (":include:/etc/passwd", 550),
        ("a b", 550),
        ("a@b\r\nRCPT TO:<x@y>", 550),
        ("\0", 550),
        ("", 550),
        (" x@away.test ", ["x@away.test"]),
    ],
)
def test_only_addresses_are_taken_from_the_directory(value: str, expected: list[str] | int) -> None:
    assert Rig(directory=FakeDirectory(forwarding("a@here.test", value))).get("a@here.test") == expected


@pytest.mark.parametrize(
    ("address", "filter"),
    [
        ("*@here.test", r"(mail=\2a@here.test)"),
        ('"x)(uid=*"@here.test', r'(mail="x\29\28uid=\2a"@here.test)'),
        ('"a\\\\b"@here.test', r'(mail="a\5c\5cb"@here.test)'),
        ("{domain}@here.test", "(mail={domain}@here.test)"),
    ],
)
def test_addresses_are_escaped(address: str, filter: str) -> None:
    directory = FakeDirectory()
    Rig(directory=directory).get(address)
    assert filter in directory.asked


@pytest.mark.parametrize(
    ("filter", "asked"),
    [("(&(uid={local})(o={domain}))", "(&(uid=ann)(o=here.test))"), ("(x={address})", "(x=ann@here.test)")],
)
def test_what_stands_for_the_address(filter: str, asked: str) -> None:
    directory = FakeDirectory()
    searches = replace(SEARCHES, recipient_filter=filter, alias_filter=None)
    assert Rig(directory=directory, searches=searches).get("Ann@Here.test") == 550
    assert directory.asked == [asked]


def test_a_directory_that_is_away_is_no_fault_of_the_senders() -> None:
    directory = FakeDirectory(user("ann@here.test"))
    rig = Rig(directory=directory)
    directory.trouble = True
    with capturedLogs() as events:
        (reply,) = rig.begin("ann@here.test")
    assert reply is CANNOT_TELL
    assert rig.metrics.recipients_unchecked.value == 1
    assert [event["log_level"].name for event in events if event["log_format"] == "recipient_unchecked"] == ["info"]
    directory.trouble = False
    assert rig.get("ann@here.test") == ["ann@here.test"]


def test_a_directory_that_says_nothing_is_given_up() -> None:
    directory = FakeDirectory()
    directory.silent = True
    rig = Rig(directory=directory)
    answers = rig.begin("ann@here.test")
    rig.clock.advance(PATIENCE - 0.1)
    assert answers == []
    rig.clock.advance(0.2)
    assert answers == [CANNOT_TELL]


def test_answers_are_remembered_for_a_while() -> None:
    directory = FakeDirectory({**user("ann@here.test"), **forwarding("boss@here.test", "ann")})
    rig = Rig(directory=directory)

    def asked(*addresses: str) -> int:
        before = len(directory.asked)
        for address in addresses:
            rig.begin(address)
        return len(directory.asked) - before

    assert asked("ann@here.test", "eve@here.test", "boss@here.test") == 5
    assert asked("ann@here.test", "eve@here.test", "boss@here.test", "ANN@here.test") == 0
    rig.clock.advance(61)
    assert asked("eve@here.test") == 2
    # That somebody is no alias is forgotten as soon as that there is nobody.
    assert asked("ann@here.test") == 1
    assert asked("boss@here.test") == 0
    rig.clock.advance(240)
    assert asked("ann@here.test", "boss@here.test") == 3


def test_who_was_known_five_minutes_ago_gets_mail_while_the_directory_is_away() -> None:
    """Though that they are no alias is asked again each minute."""
    directory = FakeDirectory(user("ann@here.test"))
    rig = Rig(directory=directory)
    # When they are found to exist again, what is known of an alias is as old as it can be.
    for seconds in (0, 241, 59):
        rig.clock.advance(seconds)
        assert rig.get("ann+news@here.test") == ["ann+news@here.test"]
    directory.trouble = True
    for seconds in (1, 74, 74, 74, 74):
        rig.clock.advance(seconds)
        assert rig.get("ann@here.test") == ["ann@here.test"]
        assert rig.get("ann+news@here.test") == ["ann+news@here.test"]
        # Nobody has ever said that this is no alias.
        assert rig.get("ann+new@here.test") == 451
    rig.clock.advance(5)
    assert rig.get("ann@here.test") == 451
    assert rig.get("ann+news@here.test") == 451


def test_who_was_unknown_is_not_refused_for_good_while_the_directory_is_away() -> None:
    """They may be new."""
    directory = FakeDirectory()
    rig = Rig(directory=directory)
    assert rig.get("ann@here.test") == 550
    directory.trouble = True
    assert rig.get("ann@here.test") == 550
    rig.clock.advance(61)
    assert rig.get("ann@here.test") == 451


def test_a_detail_that_is_not_known_keeps_nobodys_mail_while_the_directory_is_away() -> None:
    directory = FakeDirectory({**user("ann@here.test"), **forwarding("boss@here.test", "ann")})
    rig = Rig(directory=directory, searches=replace(SEARCHES, alias_filter=None))
    assert rig.get("ann@here.test") == ["ann@here.test"]
    directory.trouble = True
    assert rig.get("ann+new@here.test") == ["ann+new@here.test"]
    assert rig.get("eve+new@here.test") == 451


def test_an_alias_does_not_take_the_mail_of_an_address_that_may_exist() -> None:
    directory = FakeDirectory({**user("boss+own@here.test"), **forwarding("boss@here.test", "ann")})
    rig = Rig("boss: ann@away.test", directory=directory, searches=replace(SEARCHES, alias_filter=None))
    directory.trouble = True
    assert rig.get("boss+own@here.test") == 451
    directory.trouble = False
    assert rig.get("boss+own@here.test") == ["boss+own@here.test"]


def keeps_detail(rig: Rig, address: str) -> bool | None:
    """None: nobody can tell."""
    answers: list[bool | None] = []

    async def ask() -> None:
        try:
            answers.append(await rig.resolver.keeps_detail(address))
        except DirectoryTrouble:
            answers.append(None)

    Deferred.fromCoroutine(ask())
    rig.clock.advance(PATIENCE)
    (answer,) = answers
    return answer


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann+x@here.test", False),
        ("Jean+Luc@HERE.test", True),
        ("jean+luc@also.test", False),
        ("file+own@also.test", True),
        # Everybody at a domain is nobody of their own.
        ("any+x@also.test", False),
        ("ad+min@here.test", True),
        ("jean+luc@away.test", False),
        ('"odd +x"@here.test', True),
    ],
)
def test_who_is_somebody_of_their_own_with_a_detail(address: str, expected: bool) -> None:
    known = {**user("ann@here.test"), **user("jean+luc@here.test"), **user('"odd +x"@here.test')}
    rig = Rig(listed="file+own\n@also.test", directory=FakeDirectory(known), postmaster="ad+min@here.test")
    assert keeps_detail(rig, address) is expected


def test_without_anybody_who_knows_a_detail_is_one() -> None:
    assert keeps_detail(Rig("boss: ann"), "jean+luc@here.test") is False


@pytest.mark.parametrize("silent", [True, False])
def test_a_directory_that_is_away_cannot_tell_of_details(silent: bool) -> None:
    directory = FakeDirectory()
    directory.silent, directory.trouble = silent, not silent
    assert keeps_detail(Rig(directory=directory), "jean+luc@here.test") is None


def test_one_question_at_a_time_for_each_address() -> None:
    directory = FakeDirectory(user("ann@here.test"))
    directory.silent = True
    rig = Rig(directory=directory)
    answers = [rig.begin("ann@here.test") for _ in range(5)]
    assert len(directory.asked) == 1
    while directory.waiting:
        directory.speak()
    assert [len(each) for each in answers] == [1] * 5
    assert len(directory.asked) == 2


LOCAL_PARTS = st.text(alphabet='ab+@ "\\\\*(){}|/:é\u0301\u2028', min_size=1, max_size=12) | st.text(
    min_size=1, max_size=12
)


@given(LOCAL_PARTS.filter(lambda local: not any(character < " " or character == "\x7f" for character in local)))
@example("Postmaster")
@example("{address}")
def test_any_address_gets_an_answer(local: str) -> None:
    """Whatever stands in quotes: nothing is raised, and no filter has more parts than it should."""
    directory = FakeDirectory()
    rig = Rig(aliases="ab: ba", listed="aa", directory=directory)
    address = str(Address(local, "here.test"))
    try:
        parse_path(address)
    except AddressError:
        return
    (answer,) = rig.begin(address)
    assert isinstance(answer, list) or answer is UNKNOWN
    for filter in directory.asked:
        assert parse_filter(filter, None, False, None, None, False).elements[0].tag == MATCH_EQUAL  # type: ignore[no-untyped-call]


def test_a_flood_of_guesses_has_a_bound() -> None:
    directory = FakeDirectory()
    directory.silent = True
    rig = Rig(directory=directory)
    answers = [rig.begin(f"guess{number}@here.test") for number in range(UNDER_WAY + 1)]
    assert [len(each) for each in answers] == [0] * UNDER_WAY + [1]
    assert answers[-1] == [CANNOT_TELL]
    assert len(directory.asked) == UNDER_WAY
    while directory.waiting:
        directory.speak()
    assert all(each == [UNKNOWN] for each in answers[:-1])
    assert rig.begin("one.more@here.test") == []


def test_trouble_in_the_middle_of_a_group_is_trouble_of_all() -> None:
    """Nobody is left out because of a bad moment."""
    directory = FakeDirectory({**user("ann@here.test"), **user("bob@here.test")})
    rig = Rig(aliases="team: ann, bob", directory=directory)
    assert rig.get("ann@here.test") == ["ann@here.test"]
    directory.trouble = True
    assert rig.begin("team@here.test") == [CANNOT_TELL]
    directory.trouble = False
    assert rig.get("team@here.test") == ["ann@here.test", "bob@here.test"]


def test_a_large_group_does_not_take_the_directory_for_itself() -> None:
    directory = FakeDirectory({})
    rig = Rig(aliases="all: " + ", ".join(f"u{number}" for number in range(100)), directory=directory)
    directory.silent = True
    answers = rig.begin("all@here.test")
    while directory.waiting:
        directory.speak()
    assert answers == [UNKNOWN]
    assert directory.most_waiting == AT_ONCE


@pytest.mark.parametrize("attributes", [{"member": ["uid=x"] * 3}, {"member;range=0-1499": ["uid=x"]}])
def test_a_group_that_is_too_large_is_not_looked_at(attributes: dict[str, list[str]]) -> None:
    members = {name: [f"{value}{number}" for number, value in enumerate(values)] for name, values in attributes.items()}
    directory = FakeDirectory({"(alias=all@here.test)": [Entry("cn=all", members)]})
    rig = Rig(directory=directory, searches=replace(SEARCHES, members=2))
    (reply,) = rig.begin("all@here.test")
    assert reply is TOO_LARGE
    assert len(directory.asked) == 1


def test_a_group_that_is_too_large_is_not_fetched_again_and_again() -> None:
    """Anybody can name it, and each time would cost the directory its time."""
    directory = FakeDirectory({"(alias=all@here.test)": [Entry("cn=all", {"member": ["uid=x1", "uid=x2", "uid=x3"]})]})
    rig = Rig(directory=directory, searches=replace(SEARCHES, members=2))
    for _ in range(5):
        assert rig.begin("all@here.test") == [TOO_LARGE]
    assert len(directory.asked) == 1
    rig.clock.advance(ABSENT_SECONDS)
    assert rig.begin("all@here.test") == [TOO_LARGE]
    assert len(directory.asked) == 2


def test_nor_is_one_whose_entry_is_too_large_to_be_read() -> None:
    class Huge(FakeDirectory):
        def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Any]:
            super().search(filter, attributes, limit)
            return fail(AnswerTooLarge("ldap1.test: the answer is too large"))

    directory = Huge()
    rig = Rig(directory=directory)
    for _ in range(5):
        assert rig.begin("all@here.test") == [TOO_LARGE]
    assert len(directory.asked) == 1
