"""Prometheus reads what the instruments say: its own client library is the judge."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from mtatwist.metrics.instruments import Instruments
from mtatwist.metrics.instruments.kinds import Counter, Gauge, Histogram
from mtatwist.metrics.text import prometheus_name, render


def read(*instruments: Counter | Histogram) -> list[Metric]:
    return list(text_string_to_metric_families(render(instruments).decode()))


def test_names_follow_the_compatibility_specification() -> None:
    assert prometheus_name(Counter("mtatwist.messages.accepted.bytes", "", "By")) == (
        "mtatwist_messages_accepted_bytes_total"
    )
    assert prometheus_name(Counter("process.cpu.time", "", "s")) == "process_cpu_time_seconds_total"
    assert prometheus_name(Gauge("process.thread.count", "", "{thread}")) == "process_thread_count"
    assert prometheus_name(Histogram("a.b.duration", "", (1.0,), "s")) == "a_b_duration_seconds"


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram("delay", "Delay", (1.0, 5.0), "s")
    for value in (0.5, 2.0, 9.0):
        histogram.observe(value)
    (metric,) = read(histogram)
    assert (metric.name, metric.type) == ("delay_seconds", "histogram")
    buckets = {sample.labels["le"]: sample.value for sample in metric.samples if sample.name.endswith("_bucket")}
    assert buckets == {"1.0": 1, "5.0": 2, "+Inf": 3}
    assert {sample.name: sample.value for sample in metric.samples if not sample.labels} == {
        "delay_seconds_sum": 11.5,
        "delay_seconds_count": 3,
    }


def test_instruments_of_one_name_stand_together() -> None:
    user = Counter("cpu.time", "CPU", "s", {"cpu.mode": "user"})
    other = Gauge("other", "Other")
    system = Counter("cpu.time", "CPU", "s", {"cpu.mode": "system"})
    system.value = 2.5
    cpu, _ = read(user, other, system)
    assert [(sample.labels, sample.value) for sample in cpu.samples] == [
        ({"cpu_mode": "user"}, 0),
        ({"cpu_mode": "system"}, 2.5),
    ]


# The format's lines end with a line feed alone; the reader takes others for line ends, too.
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], include_characters="\n"), max_size=30)


@given(WORDS, WORDS, st.floats(allow_nan=False), st.integers(0, 2**53))
def test_whatever_the_words_are_they_break_nothing(words: str, value: str, broken: float, whole: int) -> None:
    gauge, counter = Gauge("a", words, attributes={"x.y": value}), Counter("b", "b")
    gauge.value, counter.value = broken, whole
    first, second = read(gauge, counter)
    assert [(sample.labels, sample.value) for sample in first.samples] == [({"x_y": value}, broken)]
    assert [sample.value for sample in second.samples] == [whole]


def test_every_instrument_is_there_once() -> None:
    found = read(*Instruments())
    names = [metric.name for metric in found]
    assert len(names) == len(set(names)) == len({one.name for one in Instruments()})
    assert all(metric.documentation and metric.type != "unknown" for metric in found)
