"""What goes to a collector says what the instruments say, as the protocol's own classes read it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from mtatwist.metrics import otlp
from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram, UpDownCounter

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def read(message: bytes) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(message)


def metrics(message: bytes) -> list:
    (resource,) = read(message).resource_metrics
    (scope,) = resource.scope_metrics
    return list(scope.metrics)


def test_what_goes_up_and_down_and_can_be_added_up_is_a_sum_that_is_not_monotonic() -> None:
    sessions = UpDownCounter("session.active", "Sessions", "{session}")
    sessions.value = 7
    (metric,) = metrics(otlp.encode([sessions], {}, started=10.0, now=25.5))
    assert not metric.sum.is_monotonic and metric.sum.aggregation_temporality == CUMULATIVE
    assert metric.sum.data_points[0].as_int == 7


def test_a_counter_a_gauge_and_a_histogram() -> None:
    counter = Counter("mail.count", "Mail", "{message}")
    counter.value = 3
    gauge = Gauge("memory", "Memory", "By")
    gauge.value = 1.5
    histogram = Histogram("delay", "Delay", (1.0, 5.0), "s")
    for value in (0.5, 1.0, 2.0, 9.0):
        histogram.observe(value)
    first, second, third = metrics(otlp.encode([counter, gauge, histogram], {}, started=10.0, now=25.5))

    assert (first.name, first.description, first.unit) == ("mail.count", "Mail", "{message}")
    assert first.sum.is_monotonic and first.sum.aggregation_temporality == CUMULATIVE
    (point,) = first.sum.data_points
    assert (point.as_int, point.start_time_unix_nano, point.time_unix_nano) == (3, 10 * 10**9, 25_500_000_000)

    (point,) = second.gauge.data_points
    assert (point.WhichOneof("value"), point.as_double, second.unit) == ("as_double", 1.5, "By")

    assert third.histogram.aggregation_temporality == CUMULATIVE
    (point,) = third.histogram.data_points
    assert (point.count, point.sum) == (4, 12.5)
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([1.0, 5.0], [2, 1, 1])


def test_instruments_of_one_name_are_one_metric() -> None:
    user = Counter("process.cpu.time", "CPU", "s", {"cpu.mode": "user"})
    system = Counter("process.cpu.time", "CPU", "s", {"cpu.mode": "system"})
    (metric,) = metrics(otlp.encode([user, system], {}, started=0, now=1))
    modes = [point.attributes[0].value.string_value for point in metric.sum.data_points]
    assert modes == ["user", "system"]


def test_the_resource_says_who_we_are() -> None:
    (resource,) = read(otlp.encode([], {"service.name": "mtatwist"}, started=0, now=1)).resource_metrics
    (attribute,) = resource.resource.attributes
    assert (attribute.key, attribute.value.string_value) == ("service.name", "mtatwist")


def test_a_clock_that_was_set_back_makes_no_end_before_the_beginning() -> None:
    (metric,) = metrics(otlp.encode([Counter("x", "x")], {}, started=1000, now=10))
    (point,) = metric.sum.data_points
    assert point.time_unix_nano == point.start_time_unix_nano == 1000 * 10**9


def test_an_instance_keeps_its_id() -> None:
    assert otlp.instance_id("mx.example.org", "/data") == otlp.instance_id("mx.example.org", "/data")
    assert otlp.instance_id("mx.example.org", "/data") != otlp.instance_id("mx.example.org", "/other")


def test_all_that_there_is_arrives() -> None:
    """Each instrument has its own point, of its kind."""
    instruments = Instruments()
    points = 0
    for metric in metrics(otlp.encode(instruments, {}, started=0, now=1)):
        data = getattr(metric, metric.WhichOneof("data"))
        points += len(data.data_points)
    assert points == len(list(instruments))


@given(st.integers(0, 2**62), st.floats(0, 1e12), st.text(max_size=20))
def test_values_and_words_arrive_as_they_are(whole: int, broken: float, words: str) -> None:
    counter, seconds = Counter("a", words, attributes={"b": words}), Counter("c", "c")
    counter.value, seconds.value = whole, broken
    first, second = metrics(otlp.encode([counter, seconds], {words: words}, started=0, now=1))
    assert first.sum.data_points[0].as_int == whole
    assert first.description == first.sum.data_points[0].attributes[0].value.string_value == words
    assert second.sum.data_points[0].as_double == broken


def test_what_the_collector_did_not_want() -> None:
    assert otlp.rejected(b"") == (0, "")
    partial = ExportMetricsPartialSuccess(rejected_data_points=3, error_message="too many")
    said = ExportMetricsServiceResponse(partial_success=partial).SerializeToString()
    assert otlp.rejected(said) == (3, "too many")


@given(st.binary(max_size=200))
def test_garbage_is_an_answer_or_a_value_error(garbage: bytes) -> None:
    try:
        otlp.rejected(garbage)
    except ValueError as error:
        assert "OTLP" in str(error)


def test_garbage_is_seen() -> None:
    with pytest.raises(ValueError, match="OTLP"):
        otlp.rejected(b"<html>it works</html>")
