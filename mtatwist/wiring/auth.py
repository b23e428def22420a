"""Who may log in: the checkers that the portal asks."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker

from mtatwist.auth.mechanisms import REGISTRY
from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments
from mtatwist.receive.login import Logins


def make_logins(config: Config) -> Logins:
    """How people log in, as ``[auth]`` says."""
    auth = config.auth
    return Logins(
        {name.encode(): REGISTRY[name] for name in auth.mechanisms},
        require_tls=auth.require_tls,
        failures=auth.failures,
    )


def make_checkers(config: Config, reactor: Any, metrics: Instruments) -> list[ICredentialsChecker]:
    """Everybody may send us mail without logging in; what for is a matter of the validators."""
    return [AllowAnonymousAccess()]
