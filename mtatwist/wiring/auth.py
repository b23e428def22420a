"""Who may log in: the checkers that the portal asks."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker

from mtatwist.config import Config
from mtatwist.metrics.instruments import Instruments


def make_checkers(config: Config, reactor: Any, metrics: Instruments) -> list[ICredentialsChecker]:
    """Everybody may send us mail without logging in; what for is a matter of the validators."""
    return [AllowAnonymousAccess()]
