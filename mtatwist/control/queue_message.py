"""One message of the queue, as mtactl reads it from the server, and what it says of it first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from mtatwist.control import queue_words as words
from mtatwist.control.client import Client
from mtatwist.control.commands import ControlCommand


def read_message(client: Client, command: type[ControlCommand], id: str) -> dict[str, Any]:
    """All that QueueShow or Why tell of a message, as JSON has it: its recipients are ``deliveries``, and with Why each
    of those has its ``way`` (None where the server did not say). Raises ControlError, NoServer."""
    message: dict[str, Any] = {}
    deliveries: list[dict[str, Any]] = []
    for answer in client.rows(command, id=id):
        # What it was on the last page: recipients may be done with meanwhile.
        now = time.time()
        message = words.told(answer["message"], now)
        for row in answer["rows"]:
            delivery = words.told(row, now)
            if "ways" in answer:
                delivery["way"] = answer["ways"].get(row.get("domain"))
            deliveries.append(delivery)
    return {**message, "deliveries": deliveries}


def heading(message: Mapping[str, Any]) -> Iterator[str]:
    """What it is, when it came, and from where and whom, in sentences."""
    told = message
    size, age = words.size(told["size"]), words.duration(told["age"])
    yield f"{told['id']}: {size} from {words.sender(told['sender'])} for {words.count(told['recipients'], 'recipient')}"
    yield f"Received {age} ago, on {told['received_at'].replace('T', ' ')}{_peer(told)}."
    if told["user"]:
        yield f"Sent by the user {told['user']}, who had logged in."
    said = [f"{name} {told[key]}" for key, name in (("envid", "ENVID"), ("ret", "RET")) if told[key]]
    if told["body_type"]:
        said.append(f"BODY={told['body_type']}")
    if told["smtputf8"]:
        said.append("SMTPUTF8")
    if said:
        yield f"The sender had asked for {words.join(said)}."


def _peer(message: Mapping[str, Any]) -> str:
    """From where."""
    if not message["peer"]:
        # A DSN: it was made here.
        return ", made by this server itself"
    said = f" from {message['peer']}"
    if message["helo"]:
        said += f", which called itself {message['helo']}"
    said += f", by {message['protocol']}" if message["protocol"] else ""
    said += f" over {message['tls']}" if message["tls"] else " in clear"
    return said + (f", in session {message['session']}" if message["session"] else "")
