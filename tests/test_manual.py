"""The manual's examples are right: skeletons import and fit the seams they are for, configurations load."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from rigs import certificates
from twisted.cred.error import UnauthorizedLogin
from zope.interface.verify import verifyClass, verifyObject

from mtatwist import interfaces, schema, validators
from mtatwist.auth import mechanisms
from mtatwist.auth.credentials import AuthUnavailable, Login
from mtatwist.auth.mechanisms import BadResponse, IMechanism
from mtatwist.config import load
from mtatwist.control import cli
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


PAGES = ("install", "howto-smart-host", "howto-dovecot", "howto-ldap", "howto-monitoring")
TOML = re.compile(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)")


@pytest.mark.parametrize("name", PAGES)
def test_the_configurations_of_pages_that_show_whole_ones(name: str, tmp_path: Path) -> None:
    """They stand in /etc/mtatwist there."""
    made = certificates.make(tmp_path)
    made.certificate.rename(tmp_path / "mx.pem")
    made.key.rename(tmp_path / "mx.key")
    shutil.copy(tmp_path / "authority.pem", tmp_path / "directory-ca.pem")
    for secret in ("ldap-password", "recipients"):
        (tmp_path / secret).write_text("a-secret\n")
        (tmp_path / secret).chmod(0o600)
    examples = TOML.findall((SKELETONS.parent / f"{name}.rst").read_text("utf-8"))
    assert examples
    for example in examples:
        file = tmp_path / "mtatwist.toml"
        file.write_text(textwrap.dedent(example).replace("/etc/mtatwist", str(tmp_path)))
        assert not load(str(file)).warnings


SHOWN_BY = {
    "/opt/mtatwist/bin/pip install": "tests/test_packaging.py::test_twistd_knows_mta",
    "curl ": "tests/integration/test_manual_commands.py::test_what_prometheus_and_probes_fetch",
    "install ": "tests/integration/test_manual_commands.py::test_installing",
    "ln ": "tests/integration/test_manual_commands.py::test_installing",
    "mv ": "tests/integration/test_manual_commands.py::test_backup_and_restore",
    "python3 -m venv": "tests/test_packaging.py::test_twistd_knows_mta",
    "swaks ": "tests/integration/test_login.py::test_swaks",
    "systemctl ": "tests/integration/test_manual_commands.py::test_installing",
    "tar ": "tests/integration/test_manual_commands.py::test_backup_and_restore",
    "useradd ": "tests/integration/test_manual_commands.py::test_installing",
    "venv/bin/": "tests/test_packaging.py::test_twistd_knows_mta",
}
"""How commands of the manual begin, and the test that runs such; for those of mtactl see below."""

SH = re.compile(r"code-block:: sh\n\n((?: {4}.*\n|\n)+)")


def commands() -> list[str]:
    """What the pages about running the server tell people to type."""
    pages = [(SKELETONS.parent / f"{name}.rst").read_text("utf-8") for name in (*PAGES, "operations")]
    return [line.strip() for page in pages for block in SH.findall(page) for line in block.splitlines() if line.strip()]


def test_every_command_of_the_manual_is_run_somewhere() -> None:
    others = [line for line in commands() if not re.match(r"(\S*/)?mtactl ", line)]
    assert len(others) > 10
    assert not [line for line in others if not line.startswith(tuple(SHOWN_BY))]
    for where in SHOWN_BY.values():
        path, _, function = where.partition("::")
        assert f"def {function}(" in (SKELETONS.parents[1] / path).read_text("utf-8")


def test_every_verb_of_the_manual_is_one() -> None:
    """Their tests are those of tests/control, and of docs/administration.rst."""
    verbs = [shlex.split(line, comments=True)[1:] for line in commands() if re.match(r"(\S*/)?mtactl ", line)]
    assert len(verbs) > 5
    for words in verbs:
        command: click.Command = cli.main
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None
            command = found
        command.make_context(command.name, words, resilient_parsing=False)
