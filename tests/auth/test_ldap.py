"""The checker that asks the directory: what it asks, and what it makes of the answers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.search import parse_filter
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mtatwist.auth.credentials import AuthUnavailable, INamingChecker, Login, WrongPassword
from mtatwist.auth.ldap import ADDRESSES, GROUPS, LdapChecker
from mtatwist.config import load
from mtatwist.directory.connection import Entry
from mtatwist.interfaces import DirectoryTrouble, IDirectory
from mtatwist.transaction import Account

DN = "uid=alice,dc=example"
MAIL = "alice@example.org"


@implementer(IDirectory)
class FakeDirectory:
    """Answers each search with the next of ``found``."""

    def __init__(self, *found: Any, right: Any = True) -> None:
        self.found = list(found)
        self.right = right
        self.searches: list[tuple[str, list[str], int]] = []
        self.binds: list[tuple[str, str]] = []

    def search(self, filter: str, attributes: Sequence[str], limit: int = 2) -> Deferred[Any]:
        self.searches.append((filter, list(attributes), limit))
        return self._answer(self.found.pop(0))

    def bind(self, dn: str, password: str) -> Deferred[Any]:
        self.binds.append((dn, password))
        return self._answer(self.right)

    @staticmethod
    def _answer(answer: Any) -> Deferred[Any]:
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


def entry(dn: str = DN, **attributes: Sequence[str]) -> Entry:
    return Entry(dn, {"uid": ("alice",), "mail": (MAIL,), **attributes})


def checker(directory: Any, **settings: Any) -> LdapChecker:
    given: dict[str, Any] = {
        "user_filter": "(uid={user})",
        "address_attributes": ["mail"],
        "group_filter": None,
        "seconds": 9.0,
        "clock": Clock(),
        **settings,
    }
    return LdapChecker(directory, **given)


def outcome(answer: Deferred[Any]) -> Any:
    """The account, or as what it failed."""
    results: list[Any] = []
    answer.addBoth(results.append)
    (result,) = results
    return result.type if isinstance(result, Failure) else result


def login(directory: Any, user: str = "alice", secret: str = "secret", **settings: Any) -> Any:
    return outcome(checker(directory, **settings).requestAvatarId(Login(user, secret)))


def test_the_fake_is_one() -> None:
    assert verifyObject(IDirectory, FakeDirectory())


def test_right() -> None:
    directory = FakeDirectory([entry()])
    assert login(directory) == Account("alice", frozenset({MAIL}))
    ((filter, attributes, limit),) = directory.searches
    assert (filter, limit) == ("(uid=alice)", 2)
    assert {"mail", "uid", "userAccountControl", "pwdAccountLockedTime"} <= set(attributes)
    assert directory.binds == [(DN, "secret")]


@pytest.mark.parametrize("found", [[], [entry(), entry("uid=alice,ou=other")]])
def test_nobody_and_several(found: list[Entry]) -> None:
    directory = FakeDirectory(found)
    with capturedLogs() as events:
        assert login(directory) is UnauthorizedLogin
    assert directory.binds == []
    assert [event["log_format"] for event in events] == ["user_ambiguous"] * (len(found) > 1)


class Memory:
    """See OfflineCache: it must not be asked, nor told, about a login that is only tried."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, user: str) -> None:
        self.forgotten.append(user)


def test_a_login_that_is_tried_is_asked_of_the_directory_alone() -> None:
    memory: Any = Memory()

    def tried(directory: Any) -> Any:
        results: list[Any] = []
        checker(directory, offline=memory).try_out(Login("alice", "secret")).addBoth(results.append)
        (result,) = results
        return (result.type, str(result.value)) if isinstance(result, Failure) else result

    assert tried(FakeDirectory([entry()])) == Account("alice", frozenset({MAIL}))
    assert tried(FakeDirectory([entry()], right=False)) == (WrongPassword, "wrong password")
    assert memory.forgotten == []
    assert tried(FakeDirectory([])) == (UnauthorizedLogin, "nobody has that name")
    both = [entry(), entry("uid=alice,ou=other")]
    assert tried(FakeDirectory(both)) == (UnauthorizedLogin, "several entries have that name")
    disabled = entry(useraccountcontrol=("514",))
    assert tried(FakeDirectory([disabled])) == (UnauthorizedLogin, "the account is disabled")
    assert memory.forgotten == ["alice"] * 3, "that much is certain"
    assert tried(FakeDirectory(DirectoryTrouble("ldap://a: refused"))) == (AuthUnavailable, "ldap://a: refused")


def test_a_login_that_is_tried_has_its_time() -> None:
    asked, results = checker(FakeDirectory(Deferred())), []
    asked.try_out(Login("alice", "secret")).addBoth(results.append)
    asked._clock.advance(9)  # type: ignore[attr-defined]
    assert str(results[0].value) == "the directory took too long"


def test_wrong_password() -> None:
    assert login(FakeDirectory([entry()], right=False)) is WrongPassword


@pytest.mark.parametrize("user", ["alice", MAIL, "someone"])
def test_guesses_are_counted_by_the_account_whatever_its_name_was(user: str) -> None:
    asked = checker(FakeDirectory([entry()], right=False), user_filter="(|(uid={user})(mail={user}))")
    failures: list[Failure] = []
    asked.requestAvatarId(Login(user, "wrong")).addErrback(failures.append)
    assert [failure.value.account for failure in failures] == ["alice"]  # type: ignore[attr-defined]


def test_whoever_may_not_be_asked_about_is_not_bound_under_any_name() -> None:
    directory = FakeDirectory([entry()])
    asked: list[str] = []

    async def named(account: str) -> None:
        asked.append(account)
        raise AuthUnavailable("not now")

    found = checker(directory, user_filter="(|(uid={user})(mail={user}))")
    verifyObject(INamingChecker, found)
    assert outcome(found.check(Login(MAIL, "secret"), named)) is AuthUnavailable
    assert (asked, directory.binds) == (["alice"], [])


def test_waiting_for_ones_turn_is_no_trouble_of_the_directory() -> None:
    clock, turn = Clock(), Deferred[None]()

    async def named(account: str) -> None:
        await turn

    answer = checker(FakeDirectory([entry()]), clock=clock).check(Login("alice", "secret"), named)
    clock.advance(9.5)
    turn.callback(None)
    assert outcome(answer) == Account("alice", frozenset({MAIL}))


@pytest.mark.parametrize(
    ("attributes", "open_"),
    [
        ({"pwdaccountlockedtime": ("000001010000Z",)}, False),
        # Whether that is over only the directory knows.
        ({"pwdaccountlockedtime": ("20260101000000Z",)}, True),
        ({"useraccountcontrol": ("512",)}, True),
        ({"useraccountcontrol": ("514",)}, False),
        ({"useraccountcontrol": ("66050",)}, False),
        ({"useraccountcontrol": ("-2147483134",)}, False),
        ({"useraccountcontrol": ("strange",)}, False),
        ({"nsaccountlock": ("true",)}, False),
        ({"nsaccountlock": ("FALSE",)}, True),
    ],
)
def test_closed_entries(attributes: dict[str, Any], open_: bool) -> None:
    directory = FakeDirectory([entry(**attributes)])
    answer = login(directory)
    assert answer == Account("alice", frozenset({MAIL})) if open_ else answer is UnauthorizedLogin
    assert bool(directory.binds) is open_


@pytest.mark.parametrize(
    ("filter", "dn", "attributes", "name"),
    [
        ("(uid={user})", DN, {"uid": ("Alice",)}, "alice"),
        ("(|(uid={user})(mail={user}))", DN, {"uid": ("alice",)}, "alice"),
        ("(|(mail={user})(uid={user}))", DN, {"uid": ("alice",)}, MAIL),
        ("(mail={user})", DN, {"mail": ("b@x.test", "a@x.test")}, "a@x.test"),
        ("(uid={user})", "uid=bob,dc=x", {"uid": ("alice", "bob")}, "bob"),
        ("(uid={user})", "not a dn", {"uid": ("bob", "alice")}, "alice"),
        ("(& (objectClass=person)(sAMAccountName={user}) )", "cn=A B,dc=x", {"samaccountname": ("ALICE",)}, "alice"),
        ("(userPrincipalName={user}@corp.test)", DN, {"userprincipalname": ("Alice@corp.test",)}, "alice@corp.test"),
        # What it was found by is not to be read, or no attribute: as it was given.
        ("(sn={user})", DN, {}, "who"),
        ("(memberOf:1.2.840.113556.1.4.1941:={user})", DN, {}, "who"),
        # Nobody can log in with such a name, but it is one.
        ("(uid={user})", DN, {"uid": ("Al\tIce",)}, "al\tice"),
    ],
)
def test_the_name_of_an_account(filter: str, dn: str, attributes: dict[str, Any], name: str) -> None:
    account = login(FakeDirectory([entry(dn, **attributes)]), "who", user_filter=filter)
    assert account.name == name


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("Alice@Example.ORG", "Alice@example.org"),
        ("zoë@müller.test", "zoë@xn--mller-kva.test"),
        ("SMTP:a@x.test", "a@x.test"),
        ("smtp:a@x.test", "a@x.test"),
        ("X400:c=us;a= ;p=Org", None),
        ("sip:a@x.test", None),
        ("a@x.test, b@x.test", None),
        ("<a@x.test>", "a@x.test"),
        ("a@", None),
        ("@x.test", None),
        ("", None),
        ("a@x.test\r\nb", None),
        ("postmaster", None),
    ],
)
def test_addresses(value: str, address: str | None) -> None:
    account = login(FakeDirectory([entry(mail=(value, MAIL))]))
    assert account.addresses == frozenset(filter(None, (MAIL, address)))


def test_addresses_of_several_attributes_whatever_their_case() -> None:
    directory = FakeDirectory([entry(proxyaddresses=("SMTP:b@x.test",))])
    account = login(directory, address_attributes=["Mail", "proxyAddresses"])
    assert account.addresses == {MAIL, "b@x.test"}


def test_addresses_are_bounded() -> None:
    many = tuple(f"a{number}@x.test" for number in range(ADDRESSES + 100))
    assert len(login(FakeDirectory([entry(mail=many)])).addresses) == ADDRESSES


def test_groups() -> None:
    directory = FakeDirectory([entry("uid=a(b,dc=x")], [Entry("cn=g", {"mail": ("sales@x.test",)}), Entry("cn=h", {})])
    account = login(directory, group_filter="(|(member={dn})(memberUid={user}))")
    assert account.addresses == {MAIL, "sales@x.test"}
    assert directory.searches[1] == ("(|(member=uid=a\\28b,dc=x)(memberUid=alice))", ["mail"], GROUPS)


def test_a_dn_with_a_place_in_it_is_a_dn() -> None:
    directory = FakeDirectory([entry("uid={user},dc={dn}")], [])
    login(directory, group_filter="(member={dn})")
    assert directory.searches[1][0] == "(member=uid={user},dc={dn})"


def test_groups_are_not_looked_for_before_the_password_is_right() -> None:
    directory = FakeDirectory([entry()], right=False)
    assert login(directory, group_filter="(member={dn})") is WrongPassword
    assert len(directory.searches) == 1


TROUBLE = DirectoryTrouble("ldap://ldap.test: it does not answer in time")


@pytest.mark.parametrize(
    "directory",
    [
        FakeDirectory(TROUBLE),
        FakeDirectory([entry()], right=TROUBLE),
        FakeDirectory([entry()], TROUBLE),
    ],
)
def test_trouble_is_not_the_users(directory: FakeDirectory) -> None:
    answer = checker(directory, group_filter="(member={dn})").requestAvatarId(Login("alice", "secret"))
    results: list[Any] = []
    answer.addErrback(results.append)
    assert results[0].check(AuthUnavailable)
    # Where the directory is concerns nobody.
    assert "ldap" not in results[0].getErrorMessage()


def test_all_of_it_together_has_a_limit() -> None:
    clock = Clock()
    first: Deferred[Any] = Deferred()
    second: Deferred[Any] = Deferred()
    directory = FakeDirectory(first, right=second)
    answer = checker(directory, clock=clock).requestAvatarId(Login("alice", "secret"))
    clock.advance(8)
    first.callback([entry()])
    clock.advance(0.9)
    assert not answer.called
    clock.advance(0.2)
    assert outcome(answer) is AuthUnavailable
    # Nobody waits for it any more.
    assert second.called


def test_who_asked_may_give_up() -> None:
    asked: Deferred[Any] = Deferred()
    answer = checker(FakeDirectory(asked)).requestAvatarId(Login("alice", "secret"))
    answer.addErrback(lambda failure: None)
    answer.cancel()
    assert asked.called


@pytest.mark.parametrize("user", ["", "\0", "a\0b", "u" * 1025, "\udcff"])
def test_names_that_nobody_has(user: str) -> None:
    directory = FakeDirectory()
    assert login(directory, user) is UnauthorizedLogin
    assert directory.searches == []


@pytest.mark.parametrize("secret", ["", "\0", "p" * 1025, "\udcff"])
def test_passwords_that_nobody_has(secret: str) -> None:
    directory = FakeDirectory()
    assert login(directory, secret=secret) is UnauthorizedLogin
    assert directory.searches == []


def assertions(node: Any) -> list[Any]:
    """The values that a filter compares with, as ldap3 reads it."""
    return [node.assertion] if not node.elements else [one for each in node.elements for one in assertions(each)]


@given(st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable() and "\0" not in text))
def test_no_name_changes_the_filter(user: str) -> None:
    directory = FakeDirectory([])
    assert login(directory, user, user_filter="(&(objectClass=person)(uid={user}))") is UnauthorizedLogin
    ((filter, _, _),) = directory.searches
    read = assertions(parse_filter(filter, None, False, False, None, False))
    assert len(read) == 2
    # A presence test or a substring match would have no such value.
    assert set(read[1]) == {"attr", "value"}


def test_the_manuals_examples(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "ldap.rst").read_text("utf-8")
    whole, groups, other = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    whole, other = (textwrap.dedent(text).replace("/run/secrets/ldap", str(secret)) for text in (whole, other))
    before, _, _ = whole.partition("base_dn")
    filters = [line for line in textwrap.dedent(groups).splitlines() if line.startswith("group_filter")]
    file = tmp_path / "mta.toml"
    listen = '[[listen]]\nendpoint = "tcp:25"\n'
    for text in (*(whole + each for each in ("", *filters)), before.partition("uris")[0] + other):
        file.write_text(f"{listen}{text}\n")
        assert not load(file).warnings
    assert len(filters) == 3
