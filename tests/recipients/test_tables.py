"""The files of aliases and recipients: what they mean, and what is said of what is wrong in them."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtatwist.recipients.names import Name
from mtatwist.recipients.tables import Aliases, TableError, parse_aliases, parse_recipients

HERE = ("here.test", "also.test")


def ours(domain: str) -> bool:
    return domain in HERE


def members(text: str, name: str, domain: str = "here.test") -> list[str] | None:
    """What ``name`` stands for in a file with this text."""
    found = parse_aliases(text, ours).of(Name(name, domain))
    return None if found is None else [str(address) for address in found]


def wrong(text: str) -> list[tuple[int, str]]:
    with pytest.raises(TableError) as caught:
        parse_aliases(text, ours)
    return caught.value.problems


TEXT = """\
# People
sales: ann, bob@here.test,
   # a comment in between ends nothing

\tcarol@away.test , "Dan D"
Boss:ann
"john doe" : ann
info@also.test: bob
INFO: ann\r
last: ann"""


@pytest.mark.parametrize(
    ("name", "domain", "expected"),
    [
        ("sales", "here.test", ["ann@here.test", "bob@here.test", "carol@away.test", '"Dan D"@here.test']),
        ("sales", "also.test", ["ann@also.test", "bob@here.test", "carol@away.test", '"Dan D"@also.test']),
        ("boss", "here.test", ["ann@here.test"]),
        ("john doe", "here.test", ["ann@here.test"]),
        ("info", "also.test", ["bob@also.test"]),
        ("info", "here.test", ["ann@here.test"]),
        ("last", "here.test", ["ann@here.test"]),
        ("ann", "here.test", None),
    ],
)
def test_aliases(name: str, domain: str, expected: list[str] | None) -> None:
    assert members(TEXT, name, domain) == expected


def test_a_stock_file_can_be_used() -> None:
    """As Debian installs it."""
    text = "# /etc/aliases\nmailer-daemon: postmaster\npostmaster: root\nnobody: root\nhostmaster: root\nroot: admin\n"
    assert members(text, "nobody") == ["root@here.test"]


def test_members_are_counted_once_and_domains_take_their_wire_form() -> None:
    assert members("x: ann, ann, B@MÜNCHEN.test, B@xn--mnchen-3ya.test", "x") == [
        "ann@here.test",
        "B@xn--mnchen-3ya.test",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: b\nno colon here\n", 2, "write a name, a colon and addresses"),
        ("a:\n", 1, "stands for nothing"),
        ("a: ,,\n", 1, "stands for nothing"),
        ("\n\na: b\na: c\n", 4, "in line 3 already"),
        ("a: b\nA@here.test: c\na@HERE.test: d\n", 3, "in line 2 already"),
        ('a: "|/usr/bin/procmail -d x"\n', 1, "is a command, not an address"),
        ("a: |/usr/bin/procmail\n", 1, "is a command"),
        ("a: /dev/null\n", 1, "is a file"),
        ('a: b, "/var/mail/x y"\n', 1, "is a file"),
        ("a: :include:/etc/list\n", 1, "is another list"),
        ('a: ":Include:/etc/list"\n', 1, "is another list"),
        ("a: b c\n", 1, "not a valid address"),
        ("a: b # the boss\n", 1, "comments have lines of their own"),
        ("a: b@\n", 1, "not a valid address"),
        ("a: b@x..y\n", 1, "not a valid address"),
        ('a: "b\n', 1, "never closed"),
        ('a: "b@here.test"\n', 1, "in quotation marks"),
        ("a@away.test: b\n", 1, '"away.test" is not one of relay.domains'),
        (f"a: {'x' * 65}\n", 1, "longer than 64 octets"),
        (": b\n", 1, "not a valid address"),
        ("a: b\n  c\n", 1, "not a valid address"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, words: str) -> None:
    ((found, reason),) = wrong(text)
    assert found == line
    assert words in reason
    assert "\n" not in reason


def test_everything_that_is_wrong_is_said_at_once() -> None:
    assert [line for line, _ in wrong("a:\nb: c\nd\n e\nf: |g\n")] == [1, 3, 5]


SOMETHING = st.text(alphabet='ab@.,:"\\|/# \t\r\n+é\x00\u2028', max_size=60)


@given(SOMETHING | st.text(max_size=60))
@example('a: "\\')
@example('"')
@example(" a: b\n c")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but addresses comes out, and nothing but TableError is raised."""
    try:
        found = parse_aliases(text, ours)
    except TableError as error:
        assert error.problems
        assert all(1 <= line <= text.count("\n") + 1 for line, _ in error.problems)
        return
    for key, addresses in found.members.items():
        assert addresses
        assert key.domain in ("", *HERE)
        for address in addresses:
            assert not any(character in f"{address.local}{address.domain}" for character in "\r\n\x00")
            assert not address.local.startswith(("|", "/"))


LOCAL = st.from_regex(r"[a-z0-9][a-z0-9._+]{0,8}[a-z0-9]", fullmatch=True).filter(lambda local: ".." not in local)
ADDRESS = st.builds("{}@{}.test".format, LOCAL, st.sampled_from(["here", "also", "away"]))
BREAK = st.sampled_from([", ", ",", " ,\n\t", ",\n# x\n  ", ",\n\n "])


@given(st.dictionaries(LOCAL, st.tuples(BREAK, st.lists(ADDRESS | LOCAL, min_size=1, max_size=5)), max_size=5))
def test_what_is_written_is_read(table: dict[str, tuple[str, list[str]]]) -> None:
    text = "".join(f"{name}: {separator.join(items)}\n" for name, (separator, items) in table.items())
    found = parse_aliases(text, ours)
    for name, (_, items) in table.items():
        whole = [item if "@" in item else f"{item}@here.test" for item in dict.fromkeys(items)]
        assert [str(each) for each in found.of(Name(name, "here.test")) or ()] == list(whole)


def test_a_long_file_is_read_in_one_pass() -> None:
    text = "x: " + ",\n ".join(f"user{number}@away.test" for number in range(20_000)) + '\ny: "' + '\\"' * 20_000
    ((line, _),) = wrong(text)
    assert line == 20_001


@pytest.mark.parametrize(
    ("name", "domain", "known"),
    [
        ("ann", "here.test", True),
        ("ann", "also.test", True),
        ("bob", "here.test", True),
        ("bob", "also.test", False),
        ("anybody", "also.test", False),
        ("john doe", "here.test", True),
    ],
)
def test_recipients(name: str, domain: str, known: bool) -> None:
    listed = parse_recipients('# known\nAnn\n\nBob@Here.test\r\n"john doe"\n', ours)
    assert listed.knows(Name(name, domain)) is known


def test_a_whole_domain() -> None:
    listed = parse_recipients("@also.test\n", ours)
    assert listed.knows(Name("anybody", "also.test"))
    assert not listed.knows(Name("anybody", "here.test"))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ann\nbob@away.test\n", 2, "not one of relay.domains"),
        ("ann, bob\n", 1, "not a valid address"),
        ("@\n", 1, "not a valid address"),
        ("@away.test\n", 1, "not one of relay.domains"),
    ],
)
def test_wrong_recipients(text: str, line: int, words: str) -> None:
    with pytest.raises(TableError, match=words) as caught:
        parse_recipients(text, ours)
    assert caught.value.problems[0][0] == line


@given(st.text(max_size=60))
def test_any_list_is_read_or_refused(text: str) -> None:
    try:
        listed = parse_recipients(text, ours)
    except TableError:
        return
    assert all(name.domain in ("", *HERE) for name in listed.names)
    assert listed.domains <= set(HERE)


def test_without_a_file_nothing_is_an_alias() -> None:
    assert Aliases().of(Name("ann", "here.test")) is None
