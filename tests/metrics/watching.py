"""How the metrics move that say how the server itself is: with a collector, and somebody who asks."""

from __future__ import annotations

import gzip
from collections.abc import Callable

from metrics.outcomes import IN_QUEUE
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from receive.whole import Whole
from rigs.collector import GOOD, Push, answer
from rigs.probe import Wire, ask, health
from twisted.internet.address import IPv4Address

from mtatwist.metrics.instruments import Instruments

SETTINGS = {
    "health.endpoint": '"tcp:8080:interface=127.0.0.1"',
    "metrics.endpoint": '"http://192.0.2.9/v1/metrics"',
}
"""What a server needs for this."""

TOO_OLD = ExportMetricsServiceResponse(
    partial_success=ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too old")
).SerializeToString()


def await_push(server: Whole) -> None:
    """There is one in the first interval."""
    for _ in range(16):
        if server.reactor.tcpClients:
            return
        server.pass_time(1)
    raise AssertionError("no push")


def push(server: Whole) -> Wire:
    """The next connection to the collector, its request not yet answered."""
    await_push(server)
    host, port, factory, _, _ = server.reactor.tcpClients.pop(0)
    wire = Wire()
    wire.protocol = factory.buildProtocol(IPv4Address("TCP", host, port))
    wire.protocol.makeConnection(wire)
    return wire


def answered(said: bytes) -> Callable[[Whole], Instruments]:
    def scenario(server: Whole) -> Instruments:
        push(server).protocol.dataReceived(said)
        return server.metrics

    return scenario


def waits(server: Whole) -> Instruments:
    """The next hop is down; one message is its trial, the others wait for how that goes."""
    for _ in range(3):
        server.connect().send()
    while server.reactor.tcpClients:
        server.next_hop_is_down()
    for _ in range(100):
        server.pass_time(1)
    return server.metrics


def not_counted(server: Whole) -> Instruments:
    server.spool.trouble = "the disk is broken"
    server.pass_time(16)
    return server.metrics


def asked(server: Whole) -> Instruments:
    server.pass_time(1)
    ask(health(server), "/metrics")
    return server.metrics


def unready(server: Whole) -> Instruments:
    server.spool.trouble = "the disk is broken"
    assert ask(health(server)).code == 503
    return server.metrics


SCENARIOS: dict[str, Callable[[Whole], Instruments]] = {
    **IN_QUEUE,
    "mtatwist.queue.recipient.due": waits,
    "mtatwist.queue.oldest.age": waits,
    "mtatwist.queue.survey.failures": not_counted,
    "mtatwist.metric.pushes{mtatwist.outcome=succeeded}": answered(GOOD),
    "mtatwist.metric.pushes{mtatwist.outcome=failed}": answered(answer("401 No")),
    "mtatwist.metric.push.rejections": answered(answer("200 OK", "Content-Type: application/x-protobuf", body=TOO_OLD)),
    "mtatwist.metric.push.duration": answered(GOOD),
    "mtatwist.health.requests": asked,
    "mtatwist.health.refusals": unready,
    "mtatwist.reactor.lag": asked,
    "process.cpu.time{cpu.mode=user}": asked,
    "process.cpu.time{cpu.mode=system}": asked,
    "process.memory.usage": asked,
    "process.unix.file_descriptor.count": asked,
    "process.thread.count": asked,
    "process.uptime": asked,
}

GAUGES = (*IN_QUEUE, "mtatwist.queue.recipient.due", "mtatwist.queue.oldest.age", "process.")
"""Those that are looked up now and then, not kept."""


# What the settings do.


def pushed(server: Whole) -> Push:
    """The first push."""
    head, _, body = push(server).value().partition(b"\r\n\r\n")
    return Push(head.decode(), ExportMetricsServiceRequest.FromString(gzip.decompress(body)))


def collector_port(server: Whole) -> int:
    """Where the first push goes."""
    await_push(server)
    return int(server.reactor.tcpClients[0][1])


def attributes(server: Whole) -> dict[str, str]:
    """What a push says of this server, beside what it always says."""
    message = pushed(server).message
    assert message is not None
    said = message.resource_metrics[0].resource.attributes
    return {one.key: one.value.string_value for one in said if not one.key.startswith(("service.", "host."))}


def pushes_soon(server: Whole) -> bool:
    """Is there a push within a minute?"""
    server.pass_time(60)
    return bool(server.reactor.tcpClients)


def ready_with_three(server: Whole) -> int:
    """What a probe gets when three messages wait."""
    for _ in range(3):
        server.connect().send()
    server.pass_time(31)
    return ask(health(server)).code
