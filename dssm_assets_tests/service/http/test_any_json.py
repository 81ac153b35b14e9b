"""Whatever JSON a client sends, the service answers with a list or says what is wrong: never with status 500."""

from __future__ import annotations

import json
from contextlib import closing
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.any_json import bodies
from dssm_assets_tests.service.http.servers import Client, serving

SETTINGS = settings(max_examples=75, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("hand")
    bundles.write_bundle(root, half_life_days=3.0)
    with serving(LiveEngine(str(root)), limits=ServiceLimits(keep_alive_seconds=3600)) as port, closing(Client(port)) as client:
        yield client


@SETTINGS
@given(bodies)
@example({"features": {"city": "x"}, "history": {"item_ids": "n0;n1"}})
@example({"features": {"\ud800": 1, "city": "x"}})
@example({"history": {"item_ids": ["n0"], "event_times_ms": [2**63 - 1]}})
@example({"history": {"item_ids": ["n0"], "event_times_ms": {}}})
def test_any_body_gives_a_list_or_says_what_is_wrong(client, body):
    status, answer = client.send("POST", "/recall", json.dumps(body))
    assert status in (200, 400, 404), answer
    assert ("item_ids" in answer) if status == 200 else answer["faults"]


@pytest.mark.parametrize("depth", [100, 199, 254, 986, 1500])
@pytest.mark.parametrize("inner", ["1", '"\\ud800"', '"\\udfff"', '{"\\ud83d": 0}'])
@pytest.mark.parametrize("form", [("[", "]"), ('{"city":', "}")])
def test_any_depth_and_lone_surrogates_are_told_in_every_way_to_ask(client, depth, inner, form):
    value = form[0] * depth + inner + form[1] * depth
    assert client.get(f"/recall?{urlencode([('user_id', 'u'), ('filters', value)])}")[0] == 400
    for text in (value, inner):
        for key in ("filters", "features", "exclude", "user_id", text[:1]):
            request = f'{{"k": 1, "{key}": {text}}}' if key.isidentifier() else text
            assert client.send("POST", "/recall", request)[0] in (200, 400)
            assert client.send("POST", "/recall/batch", f'{{"requests": [{request}]}}')[0] in (200, 400)


@SETTINGS
@given(
    st.sampled_from(["user_id", "item_id", "k", "exclude", "unknown", "channels", "other"]), st.text(max_size=20), st.integers()
)
def test_any_query_parameter_gives_a_list_or_says_what_is_wrong(client, name, text, number):
    for route in ("/recall", "/similar"):
        query = urlencode([("user_id", "u"), ("item_id", "n0"), (name, text), (name, number)], errors="replace")
        assert client.get(f"{route}?{query}")[0] in (200, 400, 404)
