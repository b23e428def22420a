"""50 parallel logins at a slapd over StartTLS: ours beside a plain ldap3 loop that does the same in threads.

Each in a process of its own, alternating, over connections that are kept: a search with the service account and a bind
as the user. The plain loop has a thread for each login, or as many as we have connections: the better one counts.
"""

from __future__ import annotations

import json
import queue
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

TARGET = 0.8
PARALLEL = 50
LOGINS = 3000
CONNECTIONS = 4
USERS = 1000


def ours(settings: dict[str, Any], logins: int) -> None:
    """The checker as the server has it, on a real reactor."""
    from rigs.mta import relaying_to, toml
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred, gatherResults

    from mtatwist.auth.credentials import Login
    from mtatwist.config import load
    from mtatwist.metrics.instruments import Instruments
    from mtatwist.wiring.directory import make_directory, make_ldap_checker

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "mta.toml"
        file.write_text(toml({**relaying_to(1), "auth": {"backend": "ldap"}, "auth.ldap": settings}))
        config = load(file)
    reactor.seconds = time.monotonic
    directory = make_directory(config, reactor, Instruments())
    assert directory is not None
    checker = make_ldap_checker(config, directory, reactor, Instruments())
    left = iter(range(logins + PARALLEL * 4))

    async def log_in(until: int) -> None:
        for number in left:
            user = number % USERS
            account = await checker.requestAvatarId(Login(f"user{user}", f"pw{user}"))
            assert account.name == f"user{user}"
            if number >= until:
                return

    async def all_of_them(until: int) -> None:
        await gatherResults([Deferred.fromCoroutine(log_in(until)) for _ in range(PARALLEL)])

    async def run() -> None:
        directory.start()
        await all_of_them(PARALLEL * 3)
        started = time.monotonic()
        await all_of_them(sys.maxsize)
        print(time.monotonic() - started)
        await directory.stop()

    def begin() -> None:
        Deferred.fromCoroutine(run()).addErrback(lambda failure: failure.printTraceback()).addBoth(
            lambda _: reactor.stop()
        )

    reactor.callWhenRunning(begin)
    reactor.run()


def plain(settings: dict[str, Any], logins: int, threads: int) -> None:
    """ldap3 as its documentation has it, with connections that are kept."""
    import ldap3

    tls = ldap3.Tls(validate=ssl.CERT_REQUIRED, ca_certs_file=settings["ca_file"])
    work: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(logins):
        work.put(number)
    ready = threading.Barrier(threads + 1)
    attributes = ["mail", "uid", "pwdAccountLockedTime", "userAccountControl", "nsAccountLock"]

    def connect(dn: str, password: str) -> Any:
        server = ldap3.Server(settings["uris"][0], tls=tls, get_info=ldap3.NONE, connect_timeout=3)
        connection = ldap3.Connection(
            server, dn, password, client_strategy=ldap3.SAFE_SYNC, auto_referrals=False, receive_timeout=5
        )
        connection.open()
        connection.start_tls(read_server_info=False)
        assert connection.bind()[0]
        return connection

    def run() -> None:
        searching = connect(settings["bind_dn"], settings["bind_password"])
        checking = connect(settings["bind_dn"], settings["bind_password"])
        ready.wait()
        while True:
            try:
                user = work.get_nowait() % USERS
            except queue.Empty:
                break
            wanted = settings["user_filter"].format(user=f"user{user}")
            _, _, found, _ = searching.search(settings["base_dn"], wanted, attributes=attributes, size_limit=2)
            (entry,) = [each for each in found if each["type"] == "searchResEntry"]
            assert checking.rebind(entry["dn"], f"pw{user}", read_server_info=False)[0]

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.monotonic()
    for worker in workers:
        worker.join()
    print(time.monotonic() - started)


def compare(directory: Path, *, runs: int, factor: float) -> tuple[float, float]:
    """Logins in a second: ours, and the plain loop's; medians."""
    from rigs.slapd import Slapd

    logins = max(100, int(LOGINS * factor))
    contestants = (("ours", 0), ("plain", CONNECTIONS), ("plain", PARALLEL))
    rates: dict[tuple[str, int], list[float]] = {}
    with Slapd(directory, users=USERS) as ldap:
        settings = json.dumps(ldap.settings(connections=CONNECTIONS))
        for _ in range(runs):
            for kind, threads in contestants:
                done = subprocess.run(
                    [sys.executable, __file__, kind, settings, str(logins), str(threads)],
                    stdout=subprocess.PIPE,
                    text=True,
                    timeout=300,
                    check=True,
                )
                rates.setdefault((kind, threads), []).append(logins / float(done.stdout))
    medians = {contestant: statistics.median(values) for contestant, values in rates.items()}
    return medians.pop(("ours", 0)), max(medians.values())


if __name__ == "__main__":
    kind, settings, logins, threads = sys.argv[1:]
    if kind == "ours":
        ours(json.loads(settings), int(logins))
    else:
        plain(json.loads(settings), int(logins), int(threads))
