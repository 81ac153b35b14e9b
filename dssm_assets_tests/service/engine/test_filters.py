"""Lists under conditions: the same as ranking only what may be shown, with any index, and lists of the shop that change."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import faiss
import fsspec
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from fsspec.implementations.memory import MemoryFileSystem

from dssm_assets.cli import main
from dssm_assets.core.channels.channel import OwnItems, SharedData, make_channels
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.errors import ConfigError, InputError
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine import shop_lists
from dssm_assets.service.engine.id_rows import IdRows
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import ListOptions, Lists, RecallEngine, UserRequest
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle

ITEMS, DIMS, K = 3000, 8, 20
COLUMNS = pa.table({"color": pa.array(["red", "blue", "red", None]).dictionary_encode(), "price": [1.0, 2.0, 3.0, 4.0]})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("serving")
    bundles.write_bundle(root, item_columns=COLUMNS)
    return root


@pytest.fixture(scope="module")
def engine(root):
    return RecallEngine.open(str(root))


def found(engine, **options):
    return engine.recall_for_user("u", ListOptions(**options)).item_ids


def test_lists_carry_chosen_columns(engine):
    assert engine.recall_for_user("u", ListOptions(3)).fields is None
    answer = engine.recall_for_user("u", ListOptions(3, fields=["price", "color", "price"]))
    assert answer.item_ids == ["n0", "n2", "n1"]
    assert answer.fields == {"price": [1, 3, 2], "color": ["red", "red", "blue"]}
    assert engine.similar_items("n2", ListOptions(1, fields=["color"])).fields == {"color": ["blue"]}
    assert engine.recall(UserRequest(options=ListOptions(2, fields=["color"]))).fields == {"color": ["red", "red"]}


def test_dates_and_numbers_that_are_not_finite_are_as_json_has_them(tmp_path):
    days = [dt.date(2024, 1, 31), None, None, None]
    columns = {"day": days, "times": [[dt.datetime(2024, 1, 31, 12)], [], None, None], "price": [float("nan"), 1.5, None, 2.0]}
    bundles.write_bundle(tmp_path, item_columns=pa.table(columns))
    answer = RecallEngine.open(str(tmp_path)).recall(UserRequest(options=ListOptions(fields=list(columns))))
    assert answer.item_ids == ["n2", "n0", "n3", "n1"]
    day, times, price = answer.fields.values()
    assert (day, times) == ([None, "2024-01-31", None, None], [None, ["2024-01-31T12:00:00"], None, []])
    assert price == [None, None, 2.0, 1.5]
    json.dumps(answer.to_dict(), allow_nan=False)


def test_other_columns_are_refused(engine, tmp_path):
    with pytest.raises(InputError, match=r"fields: expected a column for filters: color, price, got 'title'.*serving\.filters"):
        engine.recall(UserRequest(options=ListOptions(fields=["color", "title"])))
    bundles.write_bundle(tmp_path)
    with pytest.raises(InputError, match=r"fields: expected a column for filters: there is none, got 'color'"):
        RecallEngine.open(str(tmp_path)).recall_for_user("u", ListOptions(fields=["color"]))


def test_conditions_need_their_column(engine, tmp_path):
    with pytest.raises(InputError, match=r"filters\.size: expected a column for filters: color, price, got"):
        found(engine, filters={"size": 1})
    bundles.write_bundle(tmp_path)
    with pytest.raises(InputError, match=r"there is none, got no such column.*serving\.filters"):
        found(RecallEngine.open(str(tmp_path)), filters={"color": "red"})


@pytest.mark.parametrize("kind", ["Flat", "HNSW", "IVF"])
@pytest.mark.parametrize("fraction", [0.5, 0.05, 0.005])
def test_lists_of_k_items_with_any_index(tmp_path, monkeypatch, kind, fraction):
    monkeypatch.setattr("dssm_assets.service.engine.recall_engine.SCANNED_ITEMS", 0)
    random = np.random.default_rng(3)
    items = random.standard_normal((ITEMS, DIMS)).astype(np.float32)
    users = random.standard_normal((30, DIMS)).astype(np.float32)
    index = {"Flat": faiss.IndexFlatIP(DIMS), "HNSW": faiss.IndexHNSWFlat(DIMS, 16, faiss.METRIC_INNER_PRODUCT)}.get(kind)
    if index is None:
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIMS), DIMS, 32, faiss.METRIC_INNER_PRODUCT)
        index.train(items)
        index.nprobe = 4
    index.add(items)
    group = random.random(ITEMS)
    folder = bundles.write_files(
        tmp_path,
        "2024-01-12",
        item_ids=pa.array(np.arange(ITEMS)),
        item_vectors=items,
        user_ids=pa.array(np.arange(len(users))),
        user_vectors=users,
        popular=pa.table({"item_id": [0], "count": [1]}),
        index=index,
        item_columns=pa.table({"group": group}),
    )
    bundles.point_to(tmp_path, folder.name)
    engine = RecallEngine.open(str(tmp_path))
    passing = np.flatnonzero(group <= fraction)
    hits = wanted = 0
    for user, vector in enumerate(users):
        exclude = [int(passing[0]), int(passing[-1])]
        got = engine.recall_for_user(user, ListOptions(K, exclude, {"group": {"max": fraction}})).item_ids
        allowed = np.setdiff1d(passing, exclude)
        best = allowed[np.argsort(-(items[allowed] @ vector), kind="stable")[:K]].tolist()
        assert len(got) == len(best)
        assert set(got) <= set(allowed.tolist())
        hits, wanted = hits + len(set(got) & set(best)), wanted + len(best)
        if kind == "Flat" or fraction < 0.01:
            assert got == best
    assert hits / wanted > 0.8


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world whose configuration has a column for filters, with its bundle."""
    changes = {"serving": {"filters": ["category", "stock"]}}
    workspace = open_workspace(
        worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("filtered") / "world", changes)
    )
    publish_bundle(workspace)
    return workspace


@pytest.fixture(scope="module")
def merged(world):
    return RecallEngine.open(open_bundles(world.loaded).root)


def test_bundle_has_the_columns_of_each_item(world, merged):
    rows = {row["item_id"]: row for row in worlds.item_rows()}
    ids = merged.bundle.items.ids_at(np.arange(len(merged.bundle.items)))
    for name in ("category", "stock"):
        assert merged.bundle.item_columns.column(name).to_pylist() == [rows[item][name] for item in ids]


@pytest.mark.parametrize("lists", [Lists.MERGED, Lists.VECTORS])
def test_own_history_is_left_out_by_a_switch(merged, lists):
    own = {item for day in range(len(worlds.DAYS)) for item in worlds.bought("a0", day)}
    whole = merged.recall_for_user("a0", ListOptions(200, lists=lists)).item_ids
    assert own & set(whole)
    assert merged.recall_for_user("a0", ListOptions(200, exclude_history=True, lists=lists)).item_ids == [
        item for item in whole if item not in own
    ]


def test_filters_of_python_are_those_of_json(engine):
    assert found(engine, filters={"color": ("red", "x"), "price": {"max": np.float64(1)}}) == ["n0"]
    with pytest.raises(InputError, match="values that JSON can hold"):
        found(engine, filters={"color": object()})


def test_allowed_own_items_are_proposed_whatever_their_place():
    # Own items 0 and 1 have more events; only 2 and 3 may be shown, and the channel proposes two.
    own = OwnItems(np.array([0, 4]), np.arange(4), np.array([9, 9, 3, 2]), np.full(4, 10**9))
    shared = SharedData(*[np.ones(5, np.int64)] * 4, sp.csr_matrix((5, 5)))
    channels = make_channels({ChannelName.OWN_HISTORY: 2}, shared, own, None, 10**9, np.array([False, False, True, True, True]))
    assert channels[0].propose(np.array([0])).tolist() == [[2, 3]]


def test_a_column_that_item_table_lacks_is_refused(world):
    other = open_workspace(world.loaded)
    other.config.serving.filters.append("weight")
    try:
        with pytest.raises(ConfigError, match=r"serving\.filters: expected columns of item_table.*got weight"):
            publish_bundle(other)
    finally:
        other.config.serving.filters.remove("weight")


def replace_text(path, text):
    aside = path.with_suffix(".part")
    aside.write_bytes(text if isinstance(text, bytes) else text.encode())
    aside.replace(path)


def test_lists_of_the_shop_change_without_a_new_bundle(root, tmp_path):
    blocked, stocked = tmp_path / "blocked.txt", tmp_path / "stocked.txt"
    replace_text(blocked, "")
    replace_text(stocked, "n1\nn2\r\n\n n3 \nnever heard of\n")
    live = LiveEngine(str(root), shop_lists=ShopLists(str(blocked), str(stocked)))
    assert found(live.engine) == ["n2", "n1", "n3"]
    before = live.engine
    replace_text(blocked, "n2\n")
    assert live.refresh_lists()
    assert (found(live.engine), found(before)) == (["n1", "n3"], ["n2", "n1", "n3"])
    assert found(live.engine, filters={"color": "red"}) == []
    assert live.engine.recall(UserRequest()).item_ids == ["n3", "n1"]
    assert not live.refresh_lists()


@pytest.mark.parametrize(
    ("bad", "message"), [(b"\xff", "UTF-8"), ("", "at least one item id"), (None, "blocked items|stocked")]
)
def test_a_bad_list_leaves_the_former_one(root, tmp_path, bad, message):
    stocked = tmp_path / "stocked.txt"
    replace_text(stocked, "n1")
    live = LiveEngine(str(root), shop_lists=ShopLists(stocked=str(stocked)))
    if bad is None:
        stocked.unlink()
    else:
        replace_text(stocked, bad)
    assert not live.refresh_lists()
    assert found(live.engine) == ["n1"]
    assert re.search(message, str(live.list_fault))
    with pytest.raises(InputError, match=message):
        ShopLists(stocked=str(stocked))
    replace_text(stocked, "n3\n")
    assert live.refresh_lists()
    assert (found(live.engine), live.list_fault) == (["n3"], None)


def test_a_list_of_integers_has_integers(tmp_path):
    bundles.write_bundle(tmp_path / "serving", items={10: (1, 0), 11: (0, 1), 12: (1, 1), 13: (-1, 0)})
    blocked = tmp_path / "blocked.txt"
    replace_text(blocked, "10\n 12\n")
    live = LiveEngine(str(tmp_path / "serving"), shop_lists=ShopLists(str(blocked)))
    assert found(live.engine) == [11, 13]
    replace_text(blocked, "10\nx12\n")
    assert not live.refresh_lists()
    assert "x12" in live.list_fault
    assert found(live.engine) == [11, 13]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_list_that_is_no_file_is_refused_at_once(root, tmp_path, make):
    stocked = tmp_path / "stocked.txt"
    replace_text(stocked, "n1")
    live = LiveEngine(str(root), shop_lists=ShopLists(stocked=str(stocked)))
    stocked.unlink()
    make(stocked)
    assert not live.refresh_lists()
    assert "expected a file, got a folder, pipe or device" in str(live.state.list_fault)
    assert (found(live.engine), live.state.list_errors) == (["n1"], 1)


def test_a_silent_host_of_a_list_has_a_time_limit(monkeypatch):
    monkeypatch.setattr(shop_lists, "READ_SECONDS", 1.0)
    said = "expected its content in 1 seconds, got none"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(InputError, match=said):
        ShopLists(f"http://127.0.0.1:{silent.getsockname()[1]}/blocked.txt")


class EndlessHost(BaseHTTPRequestHandler):
    """Sends ids without end, whatever it is asked for; notes how many bytes it could send."""

    protocol_version, sent_bytes, length = "HTTP/1.1", 0, ""

    def do_HEAD(self):
        self.send_response(200)
        if self.length:
            self.send_header("Content-Length", self.length)
        self.send_header("Connection", "close")
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        with contextlib.suppress(OSError):
            while True:
                EndlessHost.sent_bytes += self.wfile.write(b"n1\n" * 20_000)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("kind", ["http", "s3", "file"])
def test_a_list_without_end_is_read_up_to_its_limit(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(shop_lists, "MAX_LIST_BYTES", 1 << 20)
    monkeypatch.setattr(EndlessHost, "sent_bytes", 0)
    monkeypatch.setattr(EndlessHost, "length", str(1 << 40) if kind == "s3" else "")
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessHost) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{host.server_port}"
        uri, options = f"{url}/stock.txt", {}
        if kind == "s3":
            uri, options = "s3://shop/stock.txt", {"endpoint_url": url, "key": "k", "secret": "s", "skip_instance_cache": True}
        elif kind == "file":
            path = tmp_path / "stock.txt"
            path.touch()
            os.truncate(path, 1 << 40)
            uri = str(path)
        with pytest.raises(InputError, match=r"stocked items .*stock.txt: expected at most 1 MiB, got more"):
            ShopLists(stocked=uri, root="s3://shop/serving" if options else "", options=options)
        host.shutdown()
    assert EndlessHost.sent_bytes < 64 << 20, "buffers of the system, and nothing without end"


def test_command_takes_conditions(root, capsys):
    arguments = ["recall", "--bundle", str(root), "--user-id", "u", "--json"]
    assert main([*arguments, "--filters", '{"price": {"max": 1}}']) == 0
    assert json.loads(capsys.readouterr().out)["item_ids"] == ["n0"]
    assert main([*arguments[:-1], "-k", "1", "--fields", "color", "price"]) == 0
    assert capsys.readouterr().out.endswith("    1  n0  1  red  1.0\n")
    assert main([*arguments, "-k", "1", "--fields", "color"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"] == {"color": ["red"]}


class _Bucket(MemoryFileSystem):
    """Files that are read with a key alone."""

    protocol = "bucket"

    def __init__(self, key=None, **options):
        super().__init__(**options)
        self.key = key

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + path.rpartition("://")[2].strip("/")

    def cat_file(self, path, *arguments, **options):
        if self.key != "k":
            raise PermissionError(f"no key: {path}")
        return super().cat_file(path, *arguments, **options)


def test_lists_in_the_bucket_of_the_bundles_are_read_with_their_options():
    fsspec.register_implementation("bucket", _Bucket, clobber=True)
    for bucket in ("shop", "other"):
        _Bucket().pipe_file(f"bucket://{bucket}/stock.txt", b"n1\n")
    read = ShopLists(stocked="bucket://shop/stock.txt", root="bucket://shop/home/serving", options={"key": "k"})
    assert read.find_shown(IdRows(pa.array(["n0", "n1"]), "items")).tolist() == [False, True]
    with pytest.raises(InputError, match=r"stocked items, bucket://other/stock\.txt"):
        ShopLists(stocked="bucket://other/stock.txt", root="bucket://shop/home/serving", options={"key": "k"})
