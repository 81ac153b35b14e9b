"""Whatever conditions, lists of the shop and users a service is asked with: never a status 500, and the list obeys them all.

Also lists in which no item may be, in every mode.
"""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack
from urllib.parse import urlencode

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import Lists
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.service.http.answers import ARROW
from dssm_assets_tests.service.bundles import write_bundle
from dssm_assets_tests.service.engine.hand_tower import ITEMS
from dssm_assets_tests.service.http.servers import Client, serving

COLUMNS = {"color": ["red", "blue", "red", None], "price": [1.0, 2.0, 3.0, None], "tags": [["a", "b"], ["b"], [], None]}
FAR = 2**31 - 1
"""A date that DuckDB writes for infinity."""
TIMES = {
    "when": pa.array([0, 1000, None, 2**61 // 1000 * 1000], pa.timestamp("ns")),
    "day": pa.array([FAR, None, 0, -FAR], pa.int32()).cast(pa.date32()),
    "seen": pa.array([1767225600, 2**62, None, 253402300799], pa.timestamp("s", "Asia/Tokyo")),
    "moments": pa.array([[0, 1001], [], None, [None]], pa.list_(pa.timestamp("ns", "UTC"))),
    "days": pa.array([[0, FAR], None, [], [1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
    "opened": pa.array([0, 1, 0, None], pa.timestamp("us")).dictionary_encode(),
}
SHOWN = {
    **COLUMNS,
    "when": ["1970-01-01T00:00:00", "1970-01-01T00:00:00.000001", None, "2043-01-25T23:56:49.213693"],
    "day": [None, None, "1970-01-01", None],
    "seen": ["2026-01-01T09:00:00+09:00", None, None, None],
    "moments": [["1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00.000001+00:00"], [], None, [None]],
    "days": [["1970-01-01", None], None, [], ["1970-01-02"]],
    "opened": ["1970-01-01T00:00:00", "1970-01-01T00:00:00.000001", "1970-01-01T00:00:00", None],
}
ROWS = {item: {name: values[row] for name, values in SHOWN.items()} for row, item in enumerate(ITEMS)}
OWN = {"u": {"n0", "n1"}}
NONE = {"color": "NOPE"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    columns = pa.table({**COLUMNS, **TIMES, "color": pa.array(COLUMNS["color"]).dictionary_encode()})
    write_bundle(root, has_channels=True, stores_inputs=True, item_columns=columns)
    return root


class Shop:
    """A service, and the files of its shop lists."""

    def __init__(self, root, folder, stack):
        self._files = {name: folder / f"{name}.txt" for name in ("blocked", "stocked")}
        self._write({"blocked": [], "stocked": ["n0"]})
        self.live = LiveEngine(str(root), shop_lists=ShopLists(*map(str, self._files.values())))
        self.port = stack.enter_context(serving(self.live))
        self.client = Client(self.port)
        stack.callback(self.client.close)

    def show(self, blocked, stocked):
        self._write({"blocked": blocked, "stocked": stocked})
        self.live.refresh_lists()
        assert self.live.list_fault is None

    def _write(self, lists):
        for name, items in lists.items():
            aside = self._files[name].with_suffix(".part")
            aside.write_text("".join(f"{item}\n" for item in items))
            aside.replace(self._files[name])


@pytest.fixture(scope="module")
def shop(root, tmp_path_factory):
    with ExitStack() as stack:
        yield Shop(root, tmp_path_factory.mktemp("lists"), stack)


def values_of(item, column):
    value = ROWS[item][column]
    return value or [] if column == "tags" else [] if value is None else [value]


def passes_condition(item, column, condition):
    own = values_of(item, column)
    if not isinstance(condition, dict):
        wanted = condition if isinstance(condition, list) else [condition]
        return any(value in wanted for value in own) or (None in wanted and not own)
    found = [passes_condition(item, column, condition["in"])] if "in" in condition else []
    found += [not passes_condition(item, column, condition["not"])] if "not" in condition else []
    if "min" in condition or "max" in condition:
        low, high = condition.get("min", float("-inf")), condition.get("max", float("inf"))
        found.append(any(low <= value <= high for value in own))
    return all(found)


def passes(item, filters):
    groups = filters if isinstance(filters, list) else [filters]
    return any(all(passes_condition(item, *one) for one in group.items()) for group in groups)


def conditions(values):
    some = st.lists(values, max_size=3)
    objects = st.fixed_dictionaries({}, optional={"in": some, "not": some | values}).filter(bool)
    return values | some | objects


bounds = st.fixed_dictionaries({}, optional={"min": st.integers(0, 4), "max": st.floats(0, 4)}).filter(bool)
groups = st.fixed_dictionaries(
    {},
    optional={
        "color": conditions(st.sampled_from(["red", "blue", "NOPE", None])),
        "price": conditions(st.sampled_from([1.0, 2, 3.0, 99, None])) | bounds,
        "tags": conditions(st.sampled_from(["a", "b", "c", None])),
        "when": conditions(st.sampled_from([*SHOWN["when"], "2026-01-01"])),
        "seen": conditions(st.sampled_from(["2026-01-01T09:00:00+09:00", "2026-01-02T00:00:00+00:00"])),
    },
).filter(bool)
filters = st.none() | groups | st.lists(groups, min_size=1, max_size=3)
items = st.lists(st.sampled_from([*ITEMS, "unheard"]), max_size=5)
events = st.lists(st.tuples(st.sampled_from([*ITEMS, "unheard"]), st.integers(0, 4000)), max_size=3).map(
    lambda pairs: {"item_ids": [item for item, _ in pairs], "event_times_ms": [time for _, time in pairs]} if pairs else {}
)
users = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["u", "v", "stranger", None])},
    optional={"features": st.just({"city": "x"}), "history": events, "events": events},
).filter(lambda user: not (user.get("history") and user.get("events")))
requests = st.builds(
    lambda user, options: {**user, **options},
    users,
    st.fixed_dictionaries(
        {"k": st.integers(1, 6), "filters": filters},
        optional={
            "exclude": items,
            "exclude_history": st.booleans(),
            "channels": st.sampled_from([*map(str, Lists), None]),
            "fields": st.lists(st.sampled_from(list(SHOWN)), max_size=3),
        },
    ),
)


def check(answer, request, shown, without=()):
    wanted = request["filters"]
    allowed = {item for item in shown if wanted is None or passes(item, wanted)} - {*request.get("exclude", []), *without}
    if request.get("exclude_history") and answer["source"] != "popular":
        given = request.get("history") or request.get("events") or {}
        stored = set() if request.get("history") else OWN.get(request["user_id"], set())
        allowed -= stored | set(given.get("item_ids", []))
    found = answer["item_ids"]
    assert set(found) <= allowed
    assert len(found) == len(set(found)) == len(answer["scores"]) == min(request["k"], len(allowed))
    assert all(len(part) == len(found) for part in [answer.get("sources", found), *answer.get("fields", {}).values()])
    assert answer.get("fields", {}) == {name: [ROWS[item][name] for item in found] for name in request.get("fields", [])}


@given(st.lists(requests, min_size=1, max_size=4), items, items.filter(bool))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_lists_obey_conditions_and_lists_of_the_shop(shop, wanted, blocked, stocked):
    shop.show(blocked, stocked)
    shown = (set(ITEMS) & set(stocked)) - set(blocked)
    status, batch = shop.client.send("POST", "/recall/batch", {"requests": wanted})
    assert (status, len(batch["answers"])) == (200, len(wanted))
    status, answer = shop.client.send("POST", "/recall", wanted[0])
    assert (status, answer) == (200, batch["answers"][0])
    for one, found in zip(wanted, batch["answers"], strict=True):
        check(found, one, shown)
    first = wanted[0]
    query = [("item_id", "n2"), ("k", first["k"]), *(("exclude", item) for item in first.get("exclude", []))]
    query += [] if first["filters"] is None else [("filters", json.dumps(first["filters"]))]
    status, answer = shop.client.get(f"/similar?{urlencode([*query, *(('fields', name) for name in first.get('fields', []))])}")
    assert status == 200
    check(answer, {**first, "exclude_history": False}, shown, {"n2"})


def test_times_are_the_same_text_in_arrow(shop):
    shop.show([], list(ITEMS))
    body = json.dumps({"user_id": "u", "fields": list(SHOWN)}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{shop.port}/recall", body, {"Accept": ARROW})
    with urllib.request.urlopen(request) as response:
        (answer,) = pa.ipc.open_stream(response.read()).read_all().to_pylist()
    found = {name: answer[f"fields.{name}"] for name in SHOWN}
    assert found == {name: [ROWS[item][name] for item in answer["item_ids"]] for name in SHOWN}


@pytest.mark.parametrize("lists", ["merged", "vectors", None])
@pytest.mark.parametrize("user", [{"user_id": "u"}, {"user_id": "stranger"}, {"features": {"city": "x"}}, {}])
@pytest.mark.parametrize("reason", ["filters", "exclude", "stock"])
def test_a_list_in_which_no_item_may_be_is_empty(shop, user, lists, reason):
    shop.show([], ["unheard"] if reason == "stock" else list(ITEMS))
    options = {"filters": {"filters": NONE}, "exclude": {"exclude": list(ITEMS)}, "stock": {}}[reason]
    body = {**user, **options, "channels": lists}
    answers = [shop.client.send("POST", "/recall", body)]
    status, batch = shop.client.send("POST", "/recall/batch", {"requests": [body, body]})
    answers += [(status, one) for one in batch["answers"]]
    assert [(status, one["item_ids"], one["scores"]) for status, one in answers] == [(200, [], [])] * 3


def test_health_says_when_no_item_is_shown(shop):
    shop.show([], list(ITEMS))
    assert shop.live.state.list_fault is None
    shop.show([], ["unheard"])
    assert "leave no item of bundle" in shop.live.state.list_fault
    shop.show(list(ITEMS), list(ITEMS))
    assert "To fix" in shop.live.state.list_fault
    shop.show([], ["n0"])
    assert shop.live.state.list_fault is None
