"""Looking at certificates without a server, for those who ask whether it would start."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from mtatwist.tls.keypair import CertificateError, Files, read
from mtatwist.tls.policy import Policy, server_context


def examine(
    files: Sequence[Files], policy: Policy, *, now: datetime.datetime
) -> tuple[list[CertificateError], list[str]]:
    """Read all pairs as a server would; gives what would keep it from starting, and what else somebody should know."""
    problems: list[CertificateError] = []
    warnings: list[str] = []
    for each in files:
        try:
            pair = read(each)
            server_context(pair, policy)
        except CertificateError as error:
            if error.reason not in [known.reason for known in problems]:
                problems.append(error)
        else:
            warnings += [*pair.doubts, *pair.date_doubts(now)]
    return problems, warnings
