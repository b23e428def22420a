"""The files that a configuration names, read as the server reads them at its start: for ``mtactl config check``."""

from __future__ import annotations

import datetime
import grp
from collections.abc import Iterable
from functools import partial

from mtatwist.auth import user_file
from mtatwist.auth.user_file import UserFileError
from mtatwist.authorities import AuthoritiesError, read_authorities
from mtatwist.config import Config, ConfigError, Problem
from mtatwist.recipients.files import FileError, read_table
from mtatwist.recipients.tables import parse_aliases, parse_recipients
from mtatwist.smtp.address import DomainSet
from mtatwist.tls.examine import examine
from mtatwist.tls.keypair import Files
from mtatwist.tls.policy import Policy
from mtatwist.values.fields import fields


class _Findings:
    """What would keep a server from starting, and what else somebody should know."""

    def __init__(self, file: str) -> None:
        """``file``: the configuration's."""
        self._file = file
        self.problems: list[Problem] = []
        self.warnings: list[str] = []

    def refused(self, key: str, reasons: Iterable[str], *, forbidden: bool) -> None:
        """What ``key`` names can't be used. ``forbidden``: that is only that this user may not read it."""
        if forbidden:
            self.warnings += [
                f"{key}: {reason}; it was not checked: run this as a user who may read it, as the server must"
                for reason in reasons
            ]
        else:
            self.problems += [Problem(self._file, key, reason) for reason in reasons]


def try_files(config: Config) -> list[str]:
    """Read them all; gives warnings. Raises ConfigError with everything that is wrong."""
    findings = _Findings(config.source or "")
    for attempt in (_try_certificates, _try_authorities, _try_users, _try_recipients, _try_group):
        attempt(config, findings)
    if findings.problems:
        raise ConfigError(findings.problems)
    return findings.warnings


def _try_certificates(config: Config, findings: _Findings) -> None:
    """The certificates and their keys."""
    problems, warnings = examine(
        [Files(*each) for each in config.tls.pairs],
        Policy(**fields(config.tls, Policy)),
        now=datetime.datetime.now(datetime.UTC),
    )
    findings.warnings += warnings
    for error in problems:
        findings.refused(error.key, [error.reason], forbidden=error.forbidden)


def _try_authorities(config: Config, findings: _Findings) -> None:
    """Those that the directory and the collector are known by."""
    ldap, metrics = config.auth.ldap, config.metrics
    for key, path, used in (
        ("auth.ldap.ca_file", ldap.ca_file, ldap.uses_tls),
        ("metrics.ca_file", metrics.ca_file, metrics.endpoint is not None),
    ):
        try:
            if path is not None and used:
                read_authorities(path)
        except AuthoritiesError as error:
            findings.refused(key, [str(error)], forbidden=error.forbidden)


def _try_users(config: Config, findings: _Findings) -> None:
    """The password file, where somebody logs in by it."""
    if config.auth.backend != "file" or all(listen.role != "submission" for listen in config.listen):
        return
    try:
        findings.warnings += [f"auth.file: {warning}" for warning in user_file.read(config.auth.file).warnings()]
    except UserFileError as error:
        findings.refused("auth.file", str(error).splitlines(), forbidden=error.forbidden)


def _try_recipients(config: Config, findings: _Findings) -> None:
    """Aliases and recipients."""
    relay = config.relay
    for key, path, parse in (
        ("relay.aliases", relay.aliases, parse_aliases),
        ("relay.recipients", relay.recipients, parse_recipients),
    ):
        try:
            if path is not None:
                read_table(path, partial(parse, is_ours=DomainSet(relay.domains).__contains__))
        except FileError as error:
            findings.refused(key, error.reasons, forbidden=error.forbidden)


def _try_group(config: Config, findings: _Findings) -> None:
    """The group of the control socket."""
    name = config.control.group
    try:
        if name is not None:
            grp.getgrnam(name)
    except KeyError:
        reason = f'there is no group "{name}" on this machine: make it, or name another'
        findings.refused("control.group", [reason], forbidden=False)
