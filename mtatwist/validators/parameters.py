"""MAIL and RCPT parameters: only those whose extension we offer (RFC 5321 §4.1.1.11)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mtatwist.envelope import Recipient
from mtatwist.smtp import notify, submitter
from mtatwist.smtp.command import CommandError
from mtatwist.smtp.reply import SYNTAX, Reply
from mtatwist.transaction import Transaction

BODY_TYPES = ("7BIT", "8BITMIME", "BINARYMIME")


class Parameters:
    """Refuses unknown parameters (555) and values that can't be (501)."""

    name = "parameters"

    def mail(self, transaction: Transaction) -> Reply | None:
        """SIZE (RFC 1870 §6), BODY (RFC 6152 §2, RFC 3030 §3), SMTPUTF8 (RFC 6531 §3.4), RET, ENVID (RFC 3461 §4);
        AUTH (RFC 4954 §5), where one can log in: we believe none of it, and so it is only read."""
        for key, value in transaction.parameters.items():
            if key == "SIZE":
                if not (value.isascii() and value.isdecimal() and len(value) <= 20):
                    return SYNTAX
            elif key == "BODY":
                if value.upper() not in BODY_TYPES:
                    return SYNTAX
            elif key == "SMTPUTF8":
                if value:
                    return SYNTAX
            elif key in _MAIL:
                refusal = _judge(_MAIL[key], value)
                if refusal is not None:
                    return refusal
            elif key == "AUTH" and transaction.session.role == "submission":
                refusal = _judge(submitter.parse_submitter, value)
                if refusal is not None:
                    return refusal
            else:
                return _unknown("MAIL", key)
        return None

    def rcpt(self, transaction: Transaction, recipient: Recipient) -> Reply | None:
        """NOTIFY and ORCPT (RFC 3461 §4)."""
        for key, value in recipient.parameters.items():
            if key == "NOTIFY":
                refusal = _judge(notify.parse_notify, value)
            elif key == "ORCPT":
                refusal = _judge(partial(notify.parse_orcpt, smtputf8=transaction.smtputf8), value)
            else:
                refusal = _unknown("RCPT", key)
            if refusal is not None:
                return refusal
        return None


_MAIL = {"RET": notify.parse_ret, "ENVID": notify.parse_envid}


def _judge(parse: Callable[[str], str], value: str) -> Reply | None:
    try:
        parse(value)
    except CommandError as error:
        return error.reply
    return None


def _unknown(verb: str, key: str) -> Reply:
    return Reply(555, "5.5.4", f"Unknown {verb} parameter {key}")
