"""Run by rigs.forked, as the text of ``python -c``: imports libraries, once, and becomes ``twistd`` in each child.

Nothing of the server is imported ahead, and no reactor: a child has those for itself, as any twistd. A line on standard
input asks for one thing, a line on standard output answers it.
"""

import importlib
import json
import os
import sys

from twisted.scripts.twistd import run

LIBRARIES = """
    twisted.application.internet twisted.cred.portal twisted.internet.endpoints
    twisted.internet.ssl twisted.internet.udp twisted.internet.unix twisted.protocols.amp twisted.protocols.policies
    twisted.spread.pb twisted.web.client twisted.web.server
    asyncio email.generator gzip http.server mailbox tomllib
    apsw argon2 bcrypt cryptography.x509 idna ldap3 orjson precis_i18n treq OpenSSL.SSL
    dns.message dns.rdtypes.ANY.MX dns.rdtypes.IN.A dns.rdtypes.IN.AAAA
    opentelemetry.proto.collector.metrics.v1.metrics_service_pb2
    passlib.handlers.argon2 passlib.handlers.bcrypt passlib.handlers.digests passlib.handlers.ldap_digests
    passlib.handlers.md5_crypt passlib.handlers.misc passlib.handlers.pbkdf2 passlib.handlers.scrypt
    passlib.handlers.sha2_crypt passlib.hash
"""


def serve() -> None:
    """Do what is asked, to the end of standard input; returns in each child."""
    while line := sys.stdin.readline():
        order = json.loads(line)
        if "argv" not in order:
            pid, status = os.waitpid(order["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            become(**order)
            return
        os.write(1, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def become(argv: list[str], directory: str, environment: dict[str, str], stdout: str, stderr: str) -> None:
    """Take on what a new process would have been given."""
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = argv
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), (stdout, append), (stderr, append))):
        file = os.open(path, flags, 0o666)
        os.dup2(file, number)
        os.close(file)


for library in LIBRARIES.split():
    importlib.import_module(library)
early = [name for name in sys.modules if name == "twisted.internet.reactor" or name.split(".")[0] == "mtatwist"]
assert not early, f"{early} is for the children to import"
serve()
run()
