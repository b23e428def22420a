"""Starting, stopping, and refusing to start."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rigs.client import Client
from rigs.content import HEAD
from rigs.mta import Mta, relaying_to
from rigs.processes import listens, need_root, wait_until
from rigs.sink import Sink

MakeMta = Callable[..., Mta]

pytestmark = pytest.mark.fresh_start


def test_a_mistake_in_the_configuration_exits_78(make_mta: MakeMta) -> None:
    mta = make_mta(relaying_to(2525, relay={"netwroks": ["127.0.0.0/8"]}))
    assert mta.spawn().wait(30) == 78
    assert "netwroks" in mta.log()
    assert "networks" in mta.log()


def test_a_port_in_use_exits_71_naming_it(make_mta: MakeMta) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = [{"endpoint": f"tcp:{port}:interface=127.0.0.1"}]
        mta = make_mta(relaying_to(2525, listen=listen))
        assert mta.spawn().wait(30) == 71
    assert str(port) in mta.log()


def in_the_background(mta: Mta, directory: Path) -> Mta:
    """Have twistd leave its terminal, as it does without --nodaemon."""
    pidfile, log = directory / "mta.pid", directory / "mta.log"
    mta.command = [each for each in mta.command if each not in ("--nodaemon", "--pidfile=")]
    mta.command += ["--pidfile", str(pidfile), "--logfile", str(log)]
    return mta


def test_a_port_in_use_ends_a_start_in_the_background(make_mta: MakeMta, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = [{"endpoint": f"tcp:{port}:interface=127.0.0.1"}]
        mta = in_the_background(make_mta(relaying_to(2525, listen=listen)), tmp_path)
        child = mta.spawn()
        assert child.wait(60) == 1
    assert str(port) in child.output()
    assert "start_failed" in (tmp_path / "mta.log").read_text()
    assert not (tmp_path / "mta.pid").exists()


def test_what_another_server_holds_ends_a_start_in_the_background(make_mta: MakeMta, tmp_path: Path) -> None:
    """The spool, and the socket: whoever started it hears what is in the way."""
    with make_mta(relaying_to(2525)) as holder:
        second = in_the_background(make_mta(relaying_to(2525)), tmp_path)
        spool = second.config.read_text().replace(str(second.data_dir), str(holder.data_dir))
        path = f'[control]\nsocket = "{holder.data_dir / "control.sock"}"\n'
        for config, named in ((spool, "server.data_dir"), (f"{second.config.read_text()}\n{path}", "control.socket")):
            second.config.write_text(config)
            child = second.spawn()
            assert child.wait(60) == 1
            assert named in child.output()
            assert not (tmp_path / "mta.pid").exists()


@pytest.mark.parametrize(("before", "after"), [(None, 0o640), (0o600, 0o600), (0o644, 0o644)])
def test_not_everybody_reads_the_log(make_mta: MakeMta, tmp_path: Path, before: int | None, after: int) -> None:
    """People's addresses are in it. Whoever gave the file another mode meant it."""
    log = tmp_path / "mta.log"
    if before is not None:
        log.touch()
        log.chmod(before)
    mta = make_mta(relaying_to(2525), options=["--logfile", str(log)])
    child = mta.spawn()
    wait_until(lambda: log.exists() and '"event":"start"' in log.read_text().replace(" ", ""), 30, mta.log)
    assert log.stat().st_mode & 0o777 == after
    mta.stop()
    assert not child.running


LATE = Path(__file__).parents[1] / "rigs" / "late"


def with_late_endpoints(mta: Mta) -> Mta:
    """Let it know the endpoint "late:"."""
    mta.environment["PYTHONPATH"] = os.pathsep.join((str(LATE), mta.environment["PYTHONPATH"]))
    return mta


def test_the_only_port_turns_out_not_to_be_bound(make_mta: MakeMta) -> None:
    mta = with_late_endpoints(make_mta(relaying_to(2525, listen=[{"endpoint": "late:tor is away"}])))
    assert mta.spawn().wait(30) == 71
    assert "listen.endpoint 'late:tor is away' can't be bound: tor is away" in mta.process.stderr.read_text()
    assert [event["level"] for event in mta.events() if event["event"] == "listener_failed"] == ["critical"]


def test_one_of_two_ports_turns_out_not_to_be_bound(make_mta: MakeMta, sink: Sink) -> None:
    """Said loudly; but the other goes on."""
    listen = [{"endpoint": "late:tor is away"}, {"endpoint": "tcp:0:interface=127.0.0.1"}]
    with with_late_endpoints(make_mta(relaying_to(sink.port, listen=listen))) as mta:
        (event,) = wait_until(
            lambda: [event for event in mta.events() if event["event"] == "listener_failed"],
            10,
            "the failure is logged",
        )
        assert event["level"] == "critical"
        assert "tor is away" in event["reason"]
        with Client((mta.listening[1]["host"], mta.listening[1]["port"])) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], HEAD).code == 250
        sink.wait_for(1)


def test_a_data_directory_belongs_to_one_process(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port)) as first:
        second = make_mta(relaying_to(sink.port))
        config = second.config.read_text().replace(str(second.data_dir), str(first.data_dir))
        second.config.write_text(config)
        assert second.spawn().wait(30) not in (0, 1)
        assert str(first.data_dir) in second.log()
        with Client(first.address()) as client:
            client.ehlo()
            assert client.transaction("a@client.test", ["b@sink.test"], HEAD).code == 250
        sink.wait_for(1)


def test_stop_lets_an_open_transaction_finish(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port, timeouts={"shutdown": "20s"})) as mta:
        client, idle = Client(mta.address()), Client(mta.address())
        client.ehlo()
        idle.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        client.send(HEAD)
        mta.process.signal(15)
        wait_until(lambda: not listens(mta.address()[1]), 10, "it listens no more")
        farewell = idle.reply()
        assert (farewell.code, farewell.text[:5]) == (421, "4.3.2")
        assert idle.at_end()
        client.send(b"finished in time\r\n.\r\n")
        assert client.reply().code == 250
        assert mta.ended_well()
        client.close()
        idle.close()
    with mta:
        assert sink.wait_for(1)[0].forward_paths == ("b@sink.test",)


def test_stop_cuts_an_open_transaction_after_the_grace(make_mta: MakeMta, sink: Sink) -> None:
    with make_mta(relaying_to(sink.port, timeouts={"shutdown": "1s"})) as mta:
        client = Client(mta.address())
        client.ehlo()
        client.envelope("a@client.test", ["b@sink.test"])
        client.send(HEAD)
        mta.process.signal(15)
        reply = client.reply()
        assert (reply.code, reply.text[:5]) == (421, "4.3.2")
        assert client.at_end()
        assert mta.ended_well()
        client.close()
    assert mta.queued() == 0
    assert sink.arrivals == []


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_a_restart_resumes_at_once(make_mta: MakeMta, sink: Sink, crash: bool) -> None:
    """What was queued is due at the start, and a session that held a claim does not delay it."""
    sink.policy = lambda stage, what: "451 4.3.0 not now"
    mta = make_mta(relaying_to(sink.port, relay={"retry": "1s"}))
    with mta:
        with Client(mta.address()) as client:
            client.ehlo()
            for number in range(20):
                to = [f"{number}@sink.test"]
                assert client.transaction("a@client.test", to, HEAD).code == 250
        if crash:
            mta.kill()
        else:
            mta.stop()
            assert mta.ended_well()
        sink.policy = lambda stage, what: None
        mta.start()
        sink.wait_for(20, 10)
        wait_until(lambda: mta.queued() == 0, 10, "the queue is empty")
    assert len({arrival.forward_paths for arrival in sink.arrivals}) == 20


def test_privileges_are_dropped_after_binding(make_mta: MakeMta, sink: Sink) -> None:
    need_root("it binds a port below 1024 and becomes somebody else")
    nobody = pwd.getpwnam("nobody")
    mta = make_mta(relaying_to(sink.port), options=(f"--uid={nobody.pw_uid}", f"--gid={nobody.pw_gid}"))
    # Temporary directories of tests are root's alone.
    home = Path(tempfile.mkdtemp(prefix="mtatwist-"))
    try:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        port = _low_port()
        config = mta.config.read_text().replace(str(mta.data_dir), str(home / "data"))
        mta.config.write_text(config.replace("tcp:0:", f"tcp:{port}:"))
        with mta:
            assert mta.process.status("Uid").split() == [str(nobody.pw_uid)] * 4
            assert mta.process.status("Gid").split() == [str(nobody.pw_gid)] * 4
            assert (home / "data").stat().st_uid == nobody.pw_uid
            with Client(("127.0.0.1", port)) as client:
                client.ehlo()
                assert client.transaction("a@client.test", ["b@sink.test"], HEAD).code == 250
            sink.wait_for(1)
    finally:
        shutil.rmtree(home)


def _low_port() -> int:
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("every port below 1024 is taken")


def test_the_start_event_names_every_listener(make_mta: MakeMta, sink: Sink) -> None:
    listen = [{"endpoint": "tcp:0:interface=127.0.0.1", "role": "mx"} for _ in range(1)]
    listen.append({"endpoint": "tcp:0:interface=127.0.0.2", "role": "mx"})
    with make_mta(relaying_to(sink.port, listen=listen)) as mta:
        assert [item["host"] for item in mta.listening] == ["127.0.0.1", "127.0.0.2"]
        for number in range(2):
            with Client(mta.address("mx", number)) as client:
                assert re.match(r"mta\.test ESMTP", client.greeting.text)
