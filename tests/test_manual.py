"""The manual's examples are right: skeletons import and fit the seams they are for, configurations load."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.cred.error import UnauthorizedLogin
from zope.interface.verify import verifyClass, verifyObject

from mtatwist import interfaces, schema, validators
from mtatwist.auth import mechanisms
from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.mechanisms import BadResponse, IMechanism
from mtatwist.config import load
from mtatwist.envelope import Delivered, Envelope, Message, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import Address
from mtatwist.transaction import Account, Session, Transaction
from mtatwist.validators.chain import Chain

SKELETONS = Path(__file__).parent.parent / "docs" / "skeletons"


def skeleton(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"skeleton_{name}", SKELETONS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_skeleton_is_shown_and_every_one_shown_is_there() -> None:
    page = (SKELETONS.parent / "extending.rst").read_text("utf-8")
    there = {path.name for path in SKELETONS.glob("*.py")}
    assert {name for name in there if f".. literalinclude:: skeletons/{name}\n" in page} == there
    assert page.count("literalinclude:: skeletons/") == len(there)


def test_validator() -> None:
    chain = Chain([skeleton("validator").UnwantedSenders(["example.net"])], Instruments())
    session = Session("1", "mx", "192.0.2.1")
    refused = chain.mail(Transaction(session, Address("me", "Example.NET")))
    assert getattr(refused, "code", None) == 550
    assert chain.mail(Transaction(session, Address("me", "example.org"))) is None
    assert chain.rcpt(Transaction(session), Recipient(0, "you@example.org", "example.org")) is None


def test_mechanism() -> None:
    mechanism = skeleton("mechanism").Xoauth2()
    assert verifyObject(IMechanism, mechanism)
    with pytest.raises(BadResponse):
        mechanism.setResponse(b"alice")
    mechanism.setResponse(b"user=Alice\x01auth=Bearer abc\x01\x01")
    assert mechanism.login("192.0.2.1", "1") == Login("alice", "abc", "192.0.2.1", "1")


def test_checker() -> None:
    async def ask(name: str, password: str) -> list[str] | None:
        if name == "nobody":
            raise OSError("away")
        return ["alice@example.org"] if password == "secret" else None

    checker = skeleton("checker").AskSomebody(ask)
    ends: list[Any] = []
    for login in (Login("alice", "secret"), Login("alice", "wrong"), Login("nobody", "secret")):
        checker.requestAvatarId(login).addBoth(ends.append)
    assert ends[0] == Account("alice", frozenset({"alice@example.org"}))
    assert [failure.type for failure in ends[1:]] == [UnauthorizedLogin, AuthUnavailable]


def test_the_configuration_of_submission(tmp_path: Path) -> None:
    page = (SKELETONS.parent / "submission.rst").read_text("utf-8")
    (example,) = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    file = tmp_path / "submission.toml"
    file.write_text(textwrap.dedent(example))
    assert not load(str(file)).warnings


def test_the_configuration_knows_the_mechanisms_there_are() -> None:
    assert schema.Auth().mechanisms == tuple(mechanisms.REGISTRY)


def test_the_configuration_knows_the_validators_there_are() -> None:
    assert tuple(validators.REGISTRY) == schema.VALIDATOR_NAMES


@pytest.mark.parametrize(
    ("module", "name", "interface"),
    [
        ("spool", "NewSpool", interfaces.ISpool),
        ("transport", "NullTransport", interfaces.ITransport),
        ("transport", "NullDelivery", interfaces.IDelivery),
    ],
)
def test_interfaces(module: str, name: str, interface: type[interfaces.Interface]) -> None:
    assert verifyClass(interface, getattr(skeleton(module), name))


def test_transport() -> None:
    delivery = skeleton("transport").NullDelivery()
    recipients = [Recipient(index, f"{index}@example.org", "example.org") for index in range(2)]
    step = delivery.deliver(Message(1, Envelope("", recipients), 0, b""), recipients)
    with pytest.raises(StopIteration) as stopped:
        step.send(None)
    assert [type(outcome) for outcome in stopped.value.value] == [Delivered, Delivered]


def test_the_configuration_of_monitoring(tmp_path: Path) -> None:
    page = (SKELETONS.parent / "monitoring.rst").read_text("utf-8")
    (example,) = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    (tmp_path / "metrics").write_text("a-key\n")
    (tmp_path / "metrics").chmod(0o600)
    file = tmp_path / "monitoring.toml"
    text = textwrap.dedent(example).replace("/run/secrets", str(tmp_path))
    file.write_text(text + '[[listen]]\nendpoint = "tcp:25"\ntls = "none"\n')
    assert not load(str(file)).warnings


def test_the_tutorials_configuration(tmp_path: Path) -> None:
    page = (SKELETONS.parent / "tutorial.rst").read_text("utf-8")
    (example,) = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    file = tmp_path / "tutorial.toml"
    file.write_text(textwrap.dedent(example))
    assert not load(str(file)).warnings
