"""The text that Prometheus reads, by hand."""

from dssm_assets.serving.metrics import Counter, Gauge, Histogram, text_of


def test_counters_and_gauges():
    counter, gauge = Counter("c_total", "Things.", ("kind",)), Gauge("g", "A number.", lambda: 2.5)
    counter.add("b")
    counter.add('a "quoted"\\\n', amount=2)
    assert text_of([counter, gauge, Counter("none_total", "Nothing yet.")]) == (
        "# HELP c_total Things.\n# TYPE c_total counter\n"
        'c_total{kind="a \\"quoted\\"\\\\\\n"} 2\n'
        'c_total{kind="b"} 1\n'
        "# HELP g A number.\n# TYPE g gauge\ng 2.5\n"
        "# HELP none_total Nothing yet.\n# TYPE none_total counter\nnone_total 0\n"
    )


def test_buckets_are_cumulative_and_hold_their_bound():
    histogram = Histogram("h", "Seconds.", ("route",), bounds=(0.5, 1.0))
    for value in (0.25, 0.5, 0.75, 3.0):
        histogram.observe(value, "/a")
    assert text_of([histogram]).splitlines()[2:] == [
        'h_bucket{route="/a",le="0.5"} 2',
        'h_bucket{route="/a",le="1"} 3',
        'h_bucket{route="/a",le="+Inf"} 4',
        'h_sum{route="/a"} 4.5',
        'h_count{route="/a"} 4',
    ]
