"""Can a refused login be told by its time? ``python -m tests.bench refusals``: a wrong password, an unknown user and a
locked account, in random order, at a real directory. Alone, without a peer to compare.

Every login is the first of its name at its address, so that all have the same delay by right.
"""

from __future__ import annotations

import base64
import itertools
import math
import random
import smtplib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rigs.client import Address
from rigs.mta import Mta, relaying_to
from rigs.slapd import Slapd

ROUNDS = 60

KINDS = ("wrong password", "unknown user", "locked account")

LIMIT = 3.5
"""Standard errors by which two means may differ. Where there is no difference, one run in 700 exceeds it."""


def measure(directory: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds from AUTH to 535, by the reason."""
    directory = directory / "refusals"
    directory.mkdir()
    with Slapd(directory, users=2 * rounds) as ldap:
        config = relaying_to(
            9,
            listen=[{"endpoint": "tcp:0:interface=127.0.0.1", "role": "submission", "tls": "none"}],
            auth={"backend": "ldap", "require_tls": False, "failures": 10**6},
            limits={"errors": 10**6, "connections_per_address": 1000},
            **{"auth.ldap": ldap.settings(), "auth.lockout": {"threshold": 1, "address_threshold": 1000}},
        )
        names = {
            KINDS[0]: [f"user{number}" for number in range(rounds)],
            KINDS[1]: [f"nobody{number}" for number in range(rounds)],
            KINDS[2]: [f"user{number}" for number in range(rounds, 2 * rounds)],
        }
        with Mta(directory, config) as mta:
            address = mta.address("submission")
            with ThreadPoolExecutor(10) as pool:
                # From elsewhere: the delay at the address that is measured stays the first.
                list(pool.map(lambda name: refused(address, "127.0.0.2", [name]), names[KINDS[2]]))
            logins = [(kind, name) for kind, each in names.items() for name in each]
            random.shuffle(logins)
            taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
            seconds = refused(address, "127.0.0.1", [name for _, name in logins])
            for (kind, _), each in zip(logins, seconds, strict=True):
                taken[kind].append(each)
            return taken


def refused(address: Address, source: str, names: Sequence[str]) -> list[float]:
    """Log in with a wrong password under each of these names: seconds from AUTH to the 535."""
    seconds = []
    with smtplib.SMTP(*address, source_address=(source, 0), timeout=60) as client:
        client.ehlo()
        for name in names:
            plain = base64.b64encode(f"\0{name}\0wrong".encode()).decode()
            begun = time.perf_counter()
            code, _ = client.docmd("AUTH", f"PLAIN {plain}")
            seconds.append(time.perf_counter() - begun)
            assert code == 535, code
    return seconds


def report(taken: dict[str, list[float]]) -> bool:
    """Print it; is it all noise?"""
    for kind, seconds in taken.items():
        print(
            f"{kind:34} {statistics.mean(seconds) * 1000:10.3f} ms, standard deviation"
            f" {statistics.stdev(seconds) * 1000:.3f} ms, {len(seconds)} times",
            flush=True,
        )
    worst = 0.0
    for one, other in itertools.combinations(taken, 2):
        errors = difference(taken[one], taken[other])
        worst = max(worst, abs(errors))
        guessed = chance(taken[one], taken[other])
        print(f"{one} - {other:18} {errors:10.2f} standard errors; told apart {guessed:.0%} of the times")
    verdict = "ok" if worst <= LIMIT else "MISSED"
    print(f"the largest difference: {worst:.2f} standard errors, at most {LIMIT} are noise: {verdict}", flush=True)
    return worst <= LIMIT


def difference(one: list[float], other: list[float]) -> float:
    """Of the means, in standard errors (Welch)."""
    error = math.sqrt(statistics.variance(one) / len(one) + statistics.variance(other) / len(other))
    return (statistics.mean(one) - statistics.mean(other)) / error


def chance(one: list[float], other: list[float]) -> float:
    """How often one who gets a time of each tells right which is which; 50 % is tossing a coin."""
    larger = sum((a > b) + (a == b) / 2 for a in one for b in other) / (len(one) * len(other))
    return max(larger, 1 - larger)
