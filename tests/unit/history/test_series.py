"""The lines over time: means and sums, gaps where nothing was known, and no end of memory."""

from __future__ import annotations

import json

import pytest

from rpcd_wireguard_uplink.history.series import MOST_PATHS, SPANS, Sample, Series


def test_a_point_is_the_mean_of_its_samples_and_the_sum_of_its_bytes() -> None:
    series = Series()
    for now_s, latency_ms, loss_pct, counted in (
        (0, 10, 0, 500),
        (10, 30, 100, 900),
        (60, -1, 0, 1000),
    ):
        series.take({"wan": Sample(latency_ms, loss_pct, counted, counted)}, now_s)
    assert series.of("hour") == {"wan": ([20, -1], [50, 0], [800, 200])}
    assert series.of("day") == {"wan": ([20], [33.3], [1000])}


def test_what_nobody_measured_is_a_gap() -> None:
    series = Series()
    series.take({"wan": Sample(10, 0)}, 0)
    series.take({}, 70)
    series.take({"wan": Sample(20, 0)}, 250)
    assert series.of("hour")["wan"][0] == [10, -1, -1, -1, 20]


def test_counters_that_fall_began_anew() -> None:
    series = Series()
    for now_s, counted in ((0, 1000), (10, 1500), (20, 30)):
        series.take({"a": Sample(rx_bytes=counted)}, now_s)
    assert series.of("hour")["a"][2] == [530]


@pytest.mark.parametrize("span", SPANS)
def test_memory_is_bounded(span: str) -> None:
    series, (step_s, most) = Series(), SPANS[span]
    for i in range(3 * most):
        series.take({"a": Sample(i, 0)}, i * step_s)
    assert series.of(span)["a"][0] == list(range(2 * most, 3 * most))
    series.take({"a": Sample(1, 0)}, 9000 * most * step_s)
    assert len(series.of(span)["a"][0]) == most
    for i in range(2 * MOST_PATHS):
        series.take({"a": Sample(1, 0), f"path{i}": Sample(1, 0)}, 9001 * most * step_s)
    assert len(series.of(span)) <= MOST_PATHS + 2
    assert "a" in series.of(span)


def test_what_is_kept_goes_on_as_if_there_had_been_no_restart() -> None:
    whole, parts = Series(), Series()
    for i in range(200):
        sample = Sample(i % 40, i % 7, i * 100, i * 10)
        for series in (whole, parts):
            series.take({"wan": sample, "up": sample}, i * 37)
        if i % 50 == 20:
            kept = json.loads(json.dumps(parts.as_table()))
            parts = Series()
            parts.restore(kept)
    for span in SPANS:
        assert parts.of(span)["wan"][2] == whole.of(span)["wan"][2]
        for one, other in zip(parts.of(span)["up"][0], whole.of(span)["up"][0], strict=True):
            assert one == pytest.approx(other, abs=0.2)


def test_what_was_kept_is_bounded() -> None:
    series = Series()
    line = [0, 0, *range(1000)]
    table = {"slots": dict.fromkeys(SPANS, 0), "counted": {}}
    table["paths"] = {str(i): dict.fromkeys(SPANS, [line] * 3) for i in range(2 * MOST_PATHS)}
    series.restore(table)
    assert len(series.of("hour")) == MOST_PATHS
    assert all(len(lines[0]) == SPANS["day"][1] for lines in series.of("day").values())
