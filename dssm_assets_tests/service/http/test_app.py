"""The HTTP service, on loopback, over the hand-written bundle (`bundles.py`)."""

import re
from contextlib import closing

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service.http.servers import Client, serving


@pytest.fixture(scope="module")
def port(root):
    with serving(LiveEngine(root)) as found:
        yield found


def test_recall_of_a_stored_user(client, folder):
    status, answer = client.get("/recall?user_id=u&k=2")
    assert status == 200
    assert answer == {"bundle_id": folder.name, "source": "stored", "item_ids": ["n0", "n2"], "scores": pytest.approx([1, 0.6])}


def test_unknown_parameter_chooses_popular_items_or_404(client):
    assert client.get("/recall?user_id=stranger&k=1")[1]["source"] == "popular"
    assert client.send("POST", "/recall", {"k": 1})[1]["item_ids"] == ["n2"]
    status, answer = client.get("/recall?user_id=stranger&unknown=404")
    assert (status, answer["error"]) == (404, "UnknownIdError")
    assert answer["faults"][0]["where"] == "user_id"
    assert client.send("POST", "/recall", {"user_id": "stranger", "unknown": "404"})[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "where"),
    [
        ("GET", "/recall?user_id=u&k=0", None, ["k"]),
        ("GET", "/recall?user_id=u&k=many", None, ["query.k"]),
        ("GET", "/recall", None, ["query.user_id"]),
        ("GET", "/recall?user_id=u&filters={", None, ["query.filters"]),
        ("GET", "/recall?user_id=u&unknown=500", None, ["query.unknown"]),
        ("GET", "/recall?user_id=u&filter={}&exclude_histroy=true&k=0", None, ["query.exclude_histroy", "query.filter"]),
        ("GET", "/recall?user_id=u&k=2&k=3&unknown=404&unknown=404", None, ["query.k", "query.unknown"]),
        ("GET", "/similar?item_id=n0&K=2", None, ["query.K"]),
        ("GET", "/health?verbose", None, ["query.verbose"]),
        ("GET", "/ready?x=", None, ["query.x"]),
        ("GET", "/metrics?x=1&y=2", None, ["query.x", "query.y"]),
        ("GET", "/docs?x=1", None, ["query.x"]),
        ("POST", "/recall?k=2", {"user_id": "u"}, ["query.k"]),
        ("POST", "/recall/batch?k=2", {"requests": []}, ["query.k"]),
        (
            "POST",
            "/recall",
            {"features": {"tags": ["p", 1]}, "history": {"item_ids": 5}},
            ["feature history__item, input user:item_ids", "request, input tags"],
        ),
        ("POST", "/recall", {"features": {"shoe_size": 44}}, ["request, features"]),
        ("POST", "/recall", {"feature": {}}, ["body.feature"]),
        ("POST", "/recall", "{", ["body"]),
        ("POST", "/recall", {"user_id": "u", "exclude": [None]}, ["exclude[0]"]),
    ],
)
def test_bad_input_is_400_and_lists_every_fault(client, method, path, body, where):
    status, answer = client.send(method, path, body)
    assert status == 400
    assert [fault["where"] for fault in answer["faults"]] == where
    assert all(set(fault) == {"where", "expected", "got", "remedy"} for fault in answer["faults"])
    assert not any(re.search("should|Field|Invalid|not permitted", fault["expected"]) for fault in answer["faults"])
    if where == ["query.user_id"]:
        assert (answer["faults"][0]["expected"], answer["faults"][0]["got"]) == ("a value", "nothing")


@pytest.mark.parametrize(
    ("method", "path", "body", "where", "nearest"),
    [
        ("GET", "/recall?user_id=u&filter={}", None, "query.filter", "filters"),
        ("GET", "/recall?user_id=u&K=2", None, "query.K", "k"),
        ("GET", "/similar?item_id=n0&exclud=n1", None, "query.exclud", "exclude"),
        ("POST", "/recall", {"user_id": "u", "exclude_histroy": True}, "body.exclude_histroy", "exclude_history"),
        ("POST", "/recall/batch", {"requests": [], "request": 1}, "body.request", "requests"),
        ("POST", "/recall", {"events": {"items": ["n0"]}}, "request, events", "item_ids"),
        ("POST", "/recall", {"events": {"items": ["n0"], "event_times_ms": [1]}}, "request, events", "item_ids"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(client, method, path, body, where, nearest):
    status, answer = client.send(method, path, body)
    (fault,) = answer["faults"]
    assert (status, fault["where"]) == (400, where)
    assert fault["remedy"].startswith(f"write {nearest} if you mean it")
    assert nearest in fault["expected"]


def test_health_describes_the_bundle(client, folder):
    status, health = client.get("/health")
    assert status == 200
    assert (health["status"], health["bundle_id"], health["users"], health["items"]) == ("ok", folder.name, 2, 4)
    assert health["age_days"] > 0
    assert health["loaded_seconds_ago"] >= 0


def test_metrics_count_requests_errors_and_answers(root, folder):
    with serving(LiveEngine(root)) as port, closing(Client(port)) as client:
        for path in (
            "/recall?user_id=u",
            "/recall?user_id=stranger",
            "/recall?user_id=u&k=0",
            "/similar?item_id=n0",
            "/nowhere",
        ):
            client.get(path)
        text = client.get("/metrics")[1]
        assert client.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    assert {family.name: family.type for family in families} == {
        **{f"dssm_{name}": "counter" for name in ("requests", "request_errors", "answers", "shop_list_errors")},
        **{f"dssm_bundle_{name}": "counter" for name in ("swaps", "refused", "check_errors")},
        **{f"dssm_bundle_{name}": "gauge" for name in ("info", "loaded_timestamp_seconds", "users", "items")},
        "dssm_api_keys_stale": "gauge",
        "dssm_request_seconds": "histogram",
    }
    bounds = {sample.labels["le"] for family in families for sample in family.samples if "le" in sample.labels}
    assert bounds == {
        *["0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "+Inf"]
    }
    found = {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }
    expected = {
        ("dssm_requests_total", "route=/recall", "status=200"): 2,
        ("dssm_requests_total", "route=/recall", "status=400"): 1,
        ("dssm_requests_total", "route=other", "status=404"): 1,
        ("dssm_request_errors_total", "error=InputError", "route=/recall"): 1,
        ("dssm_answers_total", "source=popular"): 1,
        ("dssm_answers_total", "source=stored"): 1,
        ("dssm_request_seconds_count", "route=/recall"): 3,
        ("dssm_request_seconds_bucket", "le=+Inf", "route=/recall"): 3,
        ("dssm_bundle_info", f"bundle_id={folder.name}", "ds=2024-01-12", "index=Flat", "name=hand"): 1,
        ("dssm_bundle_items",): 4,
        ("dssm_bundle_swaps_total",): 0,
        ("dssm_bundle_refused_total",): 0,
    }
    assert {key: found.get(key) for key in expected} == expected
