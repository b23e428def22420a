"""The instruments as an OTLP message: opentelemetry-proto's ExportMetricsServiceRequest, cumulative."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from mtatwist import __version__
from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram, UpDownCounter

CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
"""Each message says all that happened since the start: one that got lost costs nothing but its moment."""

_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
"""Of instance ids that are made from names: OpenTelemetry's semantic conventions, service.instance.id."""


def instance_id(*names: str) -> str:
    """The same for the same server each time it starts, so that a restart makes no new series."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(names)))


def encode(
    instruments: Iterable[Counter | Histogram], resource: Mapping[str, str], *, started: float, now: float
) -> bytes:
    """Everything the instruments say; ``started`` and ``now`` are seconds since the epoch.

    A clock that was set back behind the start must not make ends before beginnings: those are refused.
    """
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add()
    metrics.resource.attributes.extend(_attributes(resource))
    scope = metrics.scope_metrics.add()
    scope.scope.name = "mtatwist"
    scope.scope.version = __version__
    began, ends = int(started * 1e9), int(max(started, now) * 1e9)
    made: dict[str, Metric] = {}
    for one in instruments:
        metric = made.get(one.name)
        if metric is None:
            metric = made[one.name] = scope.metrics.add(name=one.name, description=one.description, unit=one.unit)
        point = _add_point(metric, one)
        point.attributes.extend(_attributes(one.attributes))
        point.start_time_unix_nano = began
        point.time_unix_nano = ends
    return request.SerializeToString()


def _add_point(metric: Metric, one: Counter | Histogram) -> NumberDataPoint | HistogramDataPoint:
    if isinstance(one, Histogram):
        metric.histogram.aggregation_temporality = CUMULATIVE
        return metric.histogram.data_points.add(
            count=one.count, sum=one.sum, bucket_counts=one.counts, explicit_bounds=one.bounds
        )
    if isinstance(one, Gauge) and not isinstance(one, UpDownCounter):
        point = metric.gauge.data_points.add()
    else:
        metric.sum.aggregation_temporality = CUMULATIVE
        metric.sum.is_monotonic = not isinstance(one, UpDownCounter)
        point = metric.sum.data_points.add()
    if isinstance(one.value, int):
        point.as_int = one.value
    else:
        point.as_double = one.value
    return point


def _attributes(attributes: Mapping[str, str]) -> list[KeyValue]:
    return [KeyValue(key=name, value=AnyValue(string_value=value)) for name, value in attributes.items()]


def rejected(answer: bytes) -> tuple[int, str]:
    """How many values a collector says it did not take, and why. Raises ValueError when this is no answer to OTLP."""
    response = ExportMetricsServiceResponse()
    try:
        response.ParseFromString(answer)
    except DecodeError:
        raise ValueError("that is not an answer to OTLP") from None
    return response.partial_success.rejected_data_points, response.partial_success.error_message
