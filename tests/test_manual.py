"""The manual's examples are right: skeletons import and fit the seams they are for, configurations load."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from zope.interface.verify import verifyClass

from mtatwist import interfaces, schema, validators
from mtatwist.config import load
from mtatwist.envelope import Delivered, Envelope, Message, Recipient
from mtatwist.metrics.instruments import Instruments
from mtatwist.smtp.address import Address
from mtatwist.transaction import Session, Transaction
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


def test_the_tutorials_configuration(tmp_path: Path) -> None:
    page = (SKELETONS.parent / "tutorial.rst").read_text("utf-8")
    (example,) = re.findall(r"code-block:: toml\n\n((?: {4}.*\n|\n)+)", page)
    file = tmp_path / "tutorial.toml"
    file.write_text(textwrap.dedent(example))
    assert not load(str(file)).warnings
