"""The Prometheus page: the metrics that dashboards rely on, with their types, labels and buckets."""

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dssm_assets.serving.live import LiveEngine
from dssm_assets.serving.telemetry import ServiceMetrics
from dssm_assets_tests.serving import bundles

EXPECTED = """\
# HELP dssm_requests_total Requests by route and status.
# TYPE dssm_requests_total counter
dssm_requests_total{route="/recall",status="200"} 2
dssm_requests_total{route="/recall",status="400"} 1
# HELP dssm_request_errors_total Requests that were refused or failed, by route and error.
# TYPE dssm_request_errors_total counter
dssm_request_errors_total{route="/recall",error="InputError"} 1
# HELP dssm_answers_total Lists by their source.
# TYPE dssm_answers_total counter
dssm_answers_total{source="stored"} 2
# HELP dssm_request_seconds Time from request to response, by route.
# TYPE dssm_request_seconds histogram
dssm_request_seconds_bucket{route="/recall",le="0.0005"} 0
dssm_request_seconds_bucket{route="/recall",le="0.001"} 1
dssm_request_seconds_bucket{route="/recall",le="0.0025"} 1
dssm_request_seconds_bucket{route="/recall",le="0.005"} 1
dssm_request_seconds_bucket{route="/recall",le="0.01"} 1
dssm_request_seconds_bucket{route="/recall",le="0.025"} 1
dssm_request_seconds_bucket{route="/recall",le="0.05"} 1
dssm_request_seconds_bucket{route="/recall",le="0.1"} 1
dssm_request_seconds_bucket{route="/recall",le="0.25"} 2
dssm_request_seconds_bucket{route="/recall",le="0.5"} 2
dssm_request_seconds_bucket{route="/recall",le="1.0"} 2
dssm_request_seconds_bucket{route="/recall",le="2.5"} 2
dssm_request_seconds_bucket{route="/recall",le="5.0"} 2
dssm_request_seconds_bucket{route="/recall",le="+Inf"} 3
dssm_request_seconds_sum{route="/recall"} 8.251
dssm_request_seconds_count{route="/recall"} 3
# HELP dssm_bundle_swaps_total New bundles that replaced the previous one.
# TYPE dssm_bundle_swaps_total counter
dssm_bundle_swaps_total 1
# HELP dssm_bundle_refused_total New bundles that were broken, so that the previous one kept serving.
# TYPE dssm_bundle_refused_total counter
dssm_bundle_refused_total 0
# HELP dssm_bundle_check_errors_total Times that the pointer to the bundle could not be read.
# TYPE dssm_bundle_check_errors_total counter
dssm_bundle_check_errors_total 0
# HELP dssm_shop_list_errors_total Times that a list of the shop could not be used, so that the former ones stayed.
# TYPE dssm_shop_list_errors_total counter
dssm_shop_list_errors_total 0
# HELP dssm_bundle_info The serving bundle.
# TYPE dssm_bundle_info gauge
dssm_bundle_info{bundle_id="BUNDLE",ds="2024-01-12",name="hand",index="Flat"} 1
# HELP dssm_bundle_loaded_timestamp_seconds When the serving bundle was loaded.
# TYPE dssm_bundle_loaded_timestamp_seconds gauge
dssm_bundle_loaded_timestamp_seconds 1234.5
# HELP dssm_bundle_users Users with a stored vector.
# TYPE dssm_bundle_users gauge
dssm_bundle_users 2
# HELP dssm_bundle_items Items in the index.
# TYPE dssm_bundle_items gauge
dssm_bundle_items 4
"""
"""The page of the counts below, written as the Prometheus text format 0.0.4 specifies it."""


@pytest.fixture
def state(tmp_path):
    bundles.write_bundle(tmp_path)
    return dataclasses.replace(LiveEngine(str(tmp_path)).state, loaded_at=1234.5, swaps=1)


def samples(page):
    """Returns metric name -> (type, help, {(sample name, labels): value})."""
    return {
        family.name: (
            family.type,
            family.documentation,
            {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in family.samples},
        )
        for family in text_string_to_metric_families(page)
    }


def test_page_has_the_expected_metrics_types_labels_and_buckets(state):
    metrics = ServiceMetrics(lambda: state)
    for status, seconds in (("200", 0.001), ("200", 0.25), ("400", 8.0)):
        metrics.requests.labels("/recall", status).inc()
        metrics.seconds.labels("/recall").observe(seconds)
    metrics.errors.labels("/recall", "InputError").inc()
    metrics.answers.labels("stored").inc(2)
    assert samples(metrics.render().decode()) == samples(EXPECTED.replace("BUNDLE", state.bundle_id))
