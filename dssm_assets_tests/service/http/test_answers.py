"""The description of the service: /docs without the internet and without a key, its schema against real answers, a generated client."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import typing
from contextlib import closing
from urllib.parse import urlencode

import jsonschema
import pyarrow as pa
import pytest

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service.bundles import FG, POPULAR, USERS, write_bundle
from dssm_assets_tests.service.engine.hand_tower import ITEMS
from dssm_assets_tests.service.http.servers import Client, key_line, serving, write_keys

KEY = "key-of-the-shop-1"
LISTS = [("/recall", "get"), ("/recall", "post"), ("/recall/batch", "post"), ("/similar", "get")]


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    columns = pa.table({"title": ["a", "b", "c", None]})
    write_bundle(root, has_channels=True, stores_inputs=True, item_columns=columns)
    limits = ServiceLimits(max_body_bytes=1024)
    with serving(LiveEngine(str(root)), limits=limits, keys=write_keys(root, key_line(KEY))) as found:
        yield found


@pytest.fixture(scope="module")
def schema(port):
    with closing(Client(port)) as client:
        status, found = client.get("/openapi.json")
    assert status == 200
    return found


def test_the_first_page_leads_to_the_docs_which_load_nothing_from_elsewhere(client):
    client.get("/")
    assert client.headers["location"] == "docs"
    status, page = client.get("/docs")
    assert status == 200
    assert "http" not in page.partition("<body>")[0].replace("http-equiv", "")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert f"docs/ui/{name}" in page
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        status, content = client.get(f"/docs/ui/{name}")
        assert (status, len(content) > 100_000) == (200, True)


def test_only_the_description_is_open(client, port):
    assert [client.get(path)[0] for path in ("/", "/docs", "/openapi.json", "/health")] == [307, 200, 200, 200]
    for path in ("/recall?user_id=u", "/docs2", "/openapi.json/x", "/nowhere"):
        with closing(Client(port)) as other:
            assert other.get(path)[0] == 401


def test_everything_is_described(schema):
    assert set(schema["components"]["securitySchemes"]) == {"HTTPBearer", "APIKeyHeader"}
    for path, method in LISTS:
        route = schema["paths"][path][method]
        assert route["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}, {}]
        assert all(
            one["description"] and one["schema"].get("type", one["schema"].get("anyOf")) for one in route.get("parameters", [])
        )
        expected = {"200", "400", "401", "403", "503", "default"} | ({"413"} if method == "post" else set())
        assert set(route["responses"]) == expected | ({"404"} if path != "/recall/batch" else set())
        assert {*route["responses"]["200"]["content"]} == {"application/json", "application/vnd.apache.arrow.stream"}
    assert all("$defs" not in json.dumps(one) for one in schema["components"]["schemas"].values())
    request = schema["components"]["schemas"]["RecallRequest"]
    assert all(one.get("description") for one in request["properties"].values())
    for path in ("/health", "/ready", "/metrics"):
        assert "security" not in schema["paths"][path]["get"]
    types = {path: schema["paths"][path]["get"]["responses"]["200"]["content"] for path in ("/health", "/ready")}
    assert all("$ref" in one["application/json"]["schema"] for one in types.values())


def test_every_route_has_a_section_and_a_summary(schema):
    described = {one["name"]: one["description"] for one in schema["tags"]}
    routes = [route for methods in schema["paths"].values() for route in methods.values()]
    assert {name for route in routes for name in route["tags"]} == set(described) == {"lists", "state"}
    summaries = [route["summary"] for route in routes]
    assert len(set(summaries)) == len(routes) and all(" " in summary for summary in summaries)


def find_examples(schema):
    """Yields method, path and body of each example of the description."""
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            wanted = {one["name"]: one["schema"]["examples"][0] for one in route.get("parameters", []) if one["required"]}
            query = f"?{urlencode(wanted)}" if wanted else ""
            content = route.get("requestBody", {}).get("content", {}).get("application/json", {})
            for body in [one["value"] for one in content["examples"].values()] if content else [None]:
                yield method.upper(), f"{path}{query}", body


def test_examples_run_on_a_bundle_with_the_ids_and_columns_of_the_demo(tmp_path, monkeypatch, schema):
    age = {"feature_name": "city", "feature_type": "id_feature", "expression": "user:age", "value_dim": 1}
    monkeypatch.setitem(FG, "features", [age, *FG["features"][1:]])
    monkeypatch.setitem(POPULAR, 1029743, 3)
    items = dict(zip((1029743, 1106523, 1082185, 856942), ITEMS.values(), strict=True))
    columns = {"department": ["GROCERY"] * 3 + ["MEAT"], "brand": ["National", "Private"] * 2, "product_category": list("abcd")}
    users = dict(zip((1, 2), USERS.values(), strict=True))
    write_bundle(tmp_path, items=items, users=users, has_channels=True, stores_inputs=True, item_columns=pa.table(columns))
    with serving(LiveEngine(str(tmp_path))) as port, closing(Client(port)) as client:
        asked = [(path, *client.send(method, path, body)) for method, path, body in find_examples(schema)]
    assert [(path.partition("?")[0], status) for path, status, _ in asked] == [
        *[("/recall", 200)] * 5,
        ("/recall/batch", 200),
        *((path, 200) for path in ("/similar", "/health", "/ready", "/metrics")),
    ]
    lists = [
        one for path, _, answer in asked if path.startswith(("/recall", "/similar")) for one in answer.get("answers", [answer])
    ]
    assert [one["source"] for one in lists] == [
        "stored",
        "stored",
        "features",
        "features",
        "stored",
        "stored",
        "features",
        "features",
        "item",
    ]
    assert all(one["item_ids"] and "ignored" not in one for one in lists)


BODY = {"user_id": "u", "k": 2, "fields": ["title"], "events": {"item_ids": ["n2"], "event_times_ms": [3000]}}
ASKED = [
    (200, "get", "/recall?user_id=u&fields=title", None),
    (200, "get", "/recall?user_id=u&channels=vectors", None),
    (200, "get", "/recall?user_id=stranger", None),
    (200, "post", "/recall", BODY),
    (200, "post", "/recall", {"user_id": "u", "features": {"city": "x", "shoe": 1}, "history": {"item_ids": ["n1"]}}),
    (200, "post", "/recall/batch", {"requests": [BODY, {"user_id": "u", "k": 0}, {"user_id": "x", "unknown": "404"}]}),
    (200, "get", "/similar?item_id=n2", None),
    (200, "get", "/health", None),
    (200, "get", "/ready", None),
    (400, "get", "/recall?user_id=u&k=0&fields=size", None),
    (400, "post", "/recall", {"colour": 1}),
    (400, "post", "/recall/batch", {"requests": 5}),
    (400, "get", "/similar", None),
    (404, "get", "/recall?user_id=stranger&unknown=404", None),
    (404, "post", "/recall", {"user_id": "stranger", "unknown": "404"}),
    (404, "get", "/similar?item_id=none", None),
    (413, "post", "/recall", {"user_id": "u" * 2000}),
    (413, "post", "/recall/batch", {"requests": ["u" * 2000]}),
]


def check_form(schema, path, method, status, answer):
    form = schema["paths"][path.partition("?")[0]][method]["responses"][str(status)]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**form, "components": schema["components"]})


@pytest.mark.parametrize(("status", "method", "path", "body"), ASKED)
def test_answers_have_the_described_form(client, schema, status, method, path, body):
    got, answer = client.send(method.upper(), path, body, {"X-API-Key": KEY})
    assert got == status
    check_form(schema, path, method, status, answer)


@pytest.mark.parametrize(("path", "method"), LISTS)
def test_a_request_without_a_key_has_the_described_form(client, schema, path, method):
    status, answer = client.send(method.upper(), path, {} if method == "post" else None)
    assert status == 401
    check_form(schema, path, method, status, answer)


def test_a_busy_service_answers_in_the_described_form(root, schema, monkeypatch):
    monkeypatch.setattr("dssm_assets.service.http.list_queue.render", lambda *_, **__: time.sleep(0.3))
    with serving(LiveEngine(root), limits=ServiceLimits(request_seconds=0.01)) as port, closing(Client(port)) as client:
        for path, method in LISTS:
            asked = {"/recall": f"{path}?user_id=u", "/similar": f"{path}?item_id=n0"}[path] if method == "get" else path
            body = {"requests": []} if "batch" in path else {}
            status, answer = client.send(method.upper(), asked, body if method == "post" else None)
            assert (status, client.headers["retry-after"]) == (503, "1")
            check_form(schema, path, method, status, answer)
        for not_ready in ({"is_ready": False}, answer):  # the latter during a shutdown
            check_form(schema, "/ready", "get", status, not_ready)


@pytest.fixture(scope="module")
def generated(tmp_path_factory, schema):
    """The package of a client that openapi-python-client has made from the schema."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(schema))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"]
    made = subprocess.run([*command, "--output-path", "recall_client"], cwd=folder, capture_output=True, text=True, check=True)
    assert "Warning" not in made.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("recall_client")


def test_a_generated_client_is_typed(generated, port):
    models = importlib.import_module("recall_client.models")
    recall, by_body, batch, similar, health = (
        importlib.import_module(f"recall_client.api.{name}")
        for name in ("lists.recall", "lists.recall_by_body", "lists.recall_batch", "lists.similar", "state.health")
    )
    assert typing.get_type_hints(recall.sync)["return"] == models.ItemList | models.Refusal | None
    client = generated.AuthenticatedClient(f"http://127.0.0.1:{port}", KEY)
    found = recall.sync(client=client, user_id="u", k=2, exclude=["n0", "n3"], fields=["title"])
    assert isinstance(found, models.ItemList)
    assert (found.source, found.item_ids) == (models.AnswerSource.STORED, ["n2", "n1"])
    assert found.fields.additional_properties == {"title": ["c", "b"]}
    body = models.RecallRequest.from_dict({"user_id": "u", "history": {"item_ids": ["n1"]}, "k": 3})
    found = by_body.sync(client=client, body=body)
    assert (found.replaced, found.source) == ([models.ItemListReplacedType0Item.HISTORY], models.AnswerSource.FEATURES)
    wrong = models.RecallRequest(user_id="u", k=0)
    answers = batch.sync(client=client, body=models.BatchRequest([body, wrong])).answers
    assert [type(one) for one in answers] == [models.ItemList, models.Refusal]
    assert similar.sync(client=client, item_id="n2", k=1).item_ids == ["n1"]
    refused = recall.sync_detailed(client=client, user_id="u", k=0)
    assert (refused.status_code, refused.parsed.faults[0].where) == (400, "k")
    stranger = generated.AuthenticatedClient(f"http://127.0.0.1:{port}", "another key")
    assert recall.sync(client=stranger, user_id="u").error == "UnauthorizedError"
    assert health.sync(client=client).status is models.HealthStatus.OK
