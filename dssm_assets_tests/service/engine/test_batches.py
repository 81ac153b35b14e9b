"""Requests that are answered together: each gets the answer that it gets alone; batches in JSON and Arrow."""

import asyncio
import gc
import itertools
import json
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import faiss
import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import DssmError
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine, UserRequest
from dssm_assets.service.http import app as http
from dssm_assets.service.http import list_queue
from dssm_assets.service.http.list_queue import ListQueue
from dssm_assets.service.http.request_body import RecallRequest
from dssm_assets.service.http.telemetry import Stage
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.servers import Client, serving

BODIES = [
    {"features": {"city": "x"}, "k": 2},
    {"features": {"city": "y"}, "k": 1},
    {"features": {"city": 5}},
    {"features": {"city": ["x", "y"]}},
    {"features": {"city": None}, "k": 3},
    {"features": {"tags": ["p:1", "q:2"], "page": "home"}, "history": {"item_ids": ["n0", "n1"]}},
    {"features": {"tags": ["q:2"], "page": "home"}, "history": {"item_ids": []}},
    {"features": {"tags": [], "page": "home"}, "history": {"item_ids": ["n3", "n2", "n0"]}},
    {"features": {"tags": 7, "page": None}, "history": {"item_ids": 5}},
    {"features": {"city": "x", "size": 4}, "history": {"item_ids": ["n1"], "event_times_ms": [3]}},
    {"features": {"size": 4, "city": "y", "x": 1}, "history": {"item_ids": ["n1", "n0"], "event_times_ms": [5, 3]}},
    {"features": {"size": 4}},
    {"features": {"city": {"x": 1}}},
    {"user_id": "u", "exclude": ["n0"], "k": 2},
    {"user_id": "v"},
    {"user_id": "stranger"},
    {"user_id": "stranger", "unknown": "404"},
    {"user_id": "u", "k": 0},
    {"k": 3},
]


@pytest.fixture
def client(root):
    with serving(LiveEngine(root)) as port, closing(Client(port)) as client:
        yield client


def show(answer):
    return (type(answer), str(answer)) if isinstance(answer, DssmError) else answer


def test_requests_together_are_answered_as_alone(root):
    engine = RecallEngine.open(root)
    requests = [RecallRequest.model_validate(body).to_request() for body in BODIES]
    alone = [show(answer) for request in requests for answer in engine.recall_for_users([request])]
    assert [show(answer) for answer in engine.recall_for_users(requests)] == alone
    assert [show(answer) for answer in engine.recall_for_users(requests[::-1])] == alone[::-1]


@pytest.mark.parametrize("spec", ["Flat", "HNSW8", "IVF8,PQ2x4fsr,RFlat"])
def test_any_number_of_users_together_get_the_lists_that_they_get_alone(tmp_path, spec):
    random = np.random.default_rng(4)
    items, users = (random.normal(size=(count, 4)).astype(np.float32) for count in (3000, 70))
    index = faiss.index_factory(4, spec, faiss.METRIC_INNER_PRODUCT)
    index.train(items)
    index.add(items)
    folder = bundles.write_files(
        tmp_path,
        "2024-01-12",
        item_ids=pa.array(np.arange(3000)),
        item_vectors=items,
        user_ids=pa.array(np.arange(70)),
        user_vectors=users,
        popular=pa.table({"item_id": [0], "count": [1]}),
        index=index,
    )
    bundles.point_to(tmp_path, folder.name)
    engine = RecallEngine.open(str(tmp_path))
    requests = [UserRequest(user, options=ListOptions(50)) for user in range(70)]
    assert engine.recall_for_users(requests) == [engine.recall_for_user(user, ListOptions(50)) for user in range(70)]


def test_clients_at_once_get_the_answers_that_they_get_alone(root):
    with serving(LiveEngine(root), threads=1) as port:

        def ask(body):
            with closing(Client(port)) as client:
                return client.send("POST", "/recall", body)

        alone = [ask(body) for body in BODIES]
        with ThreadPoolExecutor(12) as clients:
            assert list(clients.map(ask, BODIES * 3)) == alone * 3


def test_batch_answers_each_request_in_its_place(client):
    requests = [{"user_id": "u", "k": 2}, {"user_id": "u", "k": 0}, {"features": {"city": "y"}, "k": 1}, {"user": 1}, 7]
    status, found = client.send("POST", "/recall/batch", {"requests": requests})
    assert status == 200
    first, second, third, fourth, fifth = found["answers"]
    assert first == client.send("POST", "/recall", requests[0])[1]
    assert (second["error"], second["faults"][0]["where"]) == ("InputError", "k")
    assert (third["source"], third["item_ids"]) == ("features", ["n1"])
    assert fourth["faults"][0]["where"] == "body.requests.3.user"
    assert fifth["error"] == "InputError"
    text = client.get("/metrics")[1]
    assert (
        'dssm_answers_total{source="features"} 1' in text
        and 'dssm_requests_total{route="/recall/batch",status="200"} 1' in text
    )


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("[]", "body"),
        ({"requests": 5}, "body.requests"),
        ({"requests": [], "k": 5}, "body.k"),
        ({"requests": [{"user_id": "u"}] * 1001}, "body.requests"),
        ({"requests": [{"user_id": "u", "k": 10_000}] * 26}, "body.requests"),
        ({"requests": [{"user_id": "u", "k": 251}] * 1000}, "body.requests"),
        ({"requests": [{"user_id": "u", "k": 5000, "fields": ["a", "b"]}] * 17}, "body.requests"),
        ("{", "body"),
    ],
)
def test_batch_of_another_form_is_refused(client, body, where):
    status, found = client.send("POST", "/recall/batch", body)
    assert (status, [fault["where"] for fault in found["faults"]]) == (400, [where])


def test_a_batch_may_ask_for_as_many_items_as_allowed(client):
    # 24 lists of 10,000 items, one of 5,000 that counts again for a column, one that counts as 0 and has an error.
    requests = [{"k": 10_000}] * 24 + [{"k": 5000, "fields": ["a"]}, {"k": -7}]
    status, found = client.send("POST", "/recall/batch", {"requests": requests})
    assert (status, len(found["answers"]), len(found["answers"][0]["item_ids"])) == (200, 26, 4)


def test_a_single_list_waits_for_no_batch_that_waits(root, monkeypatch):
    recall, computed = RecallEngine.recall_for_users, []

    def recall_slowly(self, requests, *rest):
        time.sleep(0.2 * (len(requests) > 1))
        computed.append(len(requests))
        return recall(self, requests, *rest)

    monkeypatch.setattr(RecallEngine, "recall_for_users", recall_slowly)
    with serving(LiveEngine(root), threads=1) as port, ThreadPoolExecutor(12) as clients:

        def ask(method, path, body=None):
            with closing(Client(port)) as client:
                return client.send(method, path, body)[0]

        batches = [clients.submit(ask, "POST", "/recall/batch", {"requests": [{"user_id": "u"}] * 4}) for _ in range(12)]
        while not computed:
            time.sleep(0.01)
        assert ask("GET", "/recall?user_id=u") == 200
        assert len(computed) < 8, "some batches before, the one at work, then the list"
        assert {batch.result() for batch in batches} == {200}


def test_lists_with_inputs_are_computed_together_and_wait_for_each_other(root, monkeypatch):
    recall, computed = RecallEngine.recall_for_users, []

    def recall_noting(self, requests, *rest):
        computed.append(len(requests))
        return recall(self, requests, *rest)

    monkeypatch.setattr(RecallEngine, "recall_for_users", recall_noting)
    monkeypatch.setattr(list_queue, "GATHER_SECONDS", 0.5)
    request = RecallRequest.model_validate({"features": {"city": "x"}, "k": 1}).to_request()

    async def ask(queue, pause):
        async def ask_later(seconds):
            await asyncio.sleep(seconds)
            return await queue.compute([request], Stage("parse", 0, 0), is_batch=False, is_arrow=False)

        return await asyncio.gather(*[ask_later(number * pause) for number in range(8)])

    async def ask_twice():
        with closing(ListQueue(LiveEngine(root), 2, 60)) as queue:
            return await ask(queue, 0) + await ask(queue, 0.01)

    replies = asyncio.run(ask_twice())
    assert [json.loads(reply.body)["source"] for reply in replies] == ["features"] * 16
    assert computed == [8, 8]


def test_a_single_list_waits_for_one_costly_request_of_a_batch(root, monkeypatch):
    recall, computed = RecallEngine.recall_for_users, []

    def recall_slowly(self, requests, *rest):
        time.sleep(0.1)
        computed.append([one.user_id for one in requests])
        return recall(self, requests, *rest)

    monkeypatch.setattr(RecallEngine, "recall_for_users", recall_slowly)
    monkeypatch.setattr(list_queue, "COMPARED_TOGETHER", 4)
    with serving(LiveEngine(root), threads=1) as port, ThreadPoolExecutor(1) as clients, closing(Client(port)) as client:
        # Four items are compared with one condition each, so that each request is a part.
        body = {"requests": [{"user_id": "u", "filters": {"colour": number}} for number in range(8)]}
        batch = clients.submit(lambda: Client(port).send("POST", "/recall/batch", body))
        while not computed:
            time.sleep(0.01)
        assert client.get("/recall?user_id=v")[0] == 200
        place = computed.index(["v"])
        assert 1 <= place <= 3
        assert len(batch.result()[1]["answers"]) == 8
    assert computed[:place] + computed[place + 1 :] == [["u"]] * 8


def test_large_bodies_are_parsed_one_at_a_time_with_as_much_time_in_between(root, monkeypatch):
    parse, spans = http.parse_recall_body, []

    def parse_slowly(body):
        start = time.monotonic()
        time.sleep(0.1 * (len(body) > 1000))
        spans.append((start, time.monotonic(), gc.isenabled()))
        return parse(body)

    monkeypatch.setattr(http, "parse_recall_body", parse_slowly)
    monkeypatch.setattr(http, "SMALL_BODY_BYTES", 1000)
    with serving(LiveEngine(root), threads=2) as port, ThreadPoolExecutor(4) as clients:

        def ask(exclude):
            with closing(Client(port)) as client:
                return client.send("POST", "/recall", {"user_id": "u", "exclude": exclude})[0]

        assert list(clients.map(ask, [["n1"] * 500] * 4)) == [200] * 4
        assert all(start - end >= 0.1 for (_, end, _), (start, _, _) in itertools.pairwise(spans))
        assert ask(["n1"]) == 200
    assert [is_collecting for _, _, is_collecting in spans] == [False] * 4 + [True]


def test_bodies_at_once_have_a_bounded_size(root, monkeypatch):
    monkeypatch.setattr(http, "MAX_WAITING_BYTES", 100)
    with serving(LiveEngine(root)) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /recall HTTP/1.1\r\nHost: x\r\nContent-Length: 95\r\n\r\n" + b" " * 90)
        client = Client(port)
        while (answer := client.send("POST", "/recall", {"user_id": "u", "k": 1}))[0] == 200:
            time.sleep(0.01)
        assert (answer[0], answer[1]["faults"][0]["expected"]) == (503, "at most 100 bytes of bodies at once")
        slow.sendall(b"{}   ")
        assert slow.recv(12) == b"HTTP/1.1 200"
        assert client.send("POST", "/recall", {"user_id": "u", "k": 1})[0] == 200
        client.close()


def test_lists_as_arrow_are_those_of_json(root):
    with serving(LiveEngine(root)) as port:

        def ask(path, body, accept):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Accept": accept})
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.headers["Content-Type"], answer.read()

        stream = "application/vnd.apache.arrow.stream"
        body = json.dumps({"requests": [{"user_id": "u", "k": 2}, {"user_id": "u", "k": 0}]}).encode()
        kind, content = ask("/recall/batch", body, f"application/json;q=.5, {stream}")
        table = pa.ipc.open_stream(content).read_all()
        first, second = json.loads(ask("/recall/batch", body, "*/*")[1])["answers"]
        assert kind == stream
        assert table.schema.metadata == {b"bundle_id": first["bundle_id"].encode()}
        row = {name: first[name] for name in ("source", "item_ids", "scores")}
        assert table.to_pylist()[0] == {**row, "error": None}
        assert table.column("item_ids")[1].as_py() is None and json.loads(table.column("error")[1].as_py()) == second
        (one,) = pa.ipc.open_stream(ask("/recall?user_id=u&k=2", None, stream)[1]).read_all().to_pylist()
        assert one == table.to_pylist()[0]
