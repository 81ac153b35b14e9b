"""Attempts of the campaign on whatever the outside hands in: configurations, files of tables, requests over HTTP.

Each attempt ends well or with a typed error; a request is never answered with status 500. hypothesis draws the inputs, with
a fixed seed: configurations from the pydantic models, files by breaking good ones, requests from `service/http/any_json.py`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import socket
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any, Final

import hypothesis
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st
from pydantic import BaseModel

from dssm_assets.core.config.pipeline import BehaviorTable, PipelineConfig, SourceTable
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError, InputError, PartitionMissingError, StorageError
from dssm_assets.extras.signatures.ed25519 import Ed25519Keys
from dssm_assets.extras.starter.table_survey import survey_table
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import RecallEngine
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.service.http.api_keys import read_keys
from dssm_assets.storage.config_file import load_config
from dssm_assets.storage.files import read_parquet
from dssm_assets.storage.sources.landing import SourceLanding
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.http.any_json import bodies
from dssm_assets_tests.service.http.servers import Client, serving
from dssm_assets_tests.worlds import CONFIG

Report = Callable[[str | None], None]
"""Called after each attempt, with what failed or None."""

_WORDS: Final = ["", "item", "nan", "/", "zip://", "\x00", "é", "../x", "s3://b", "2024-01-01", "+08:00", "1KB", "a" * 10_000]
_NUMBERS: Final = [0, -1, 1, 0.5, 10**12, -(10**30), 10**900, float("inf"), float("nan"), 1e308]
_ANY: Final = st.one_of(
    st.none(), st.booleans(), st.sampled_from(_NUMBERS), st.sampled_from(_WORDS), st.text(max_size=8), st.just([]), st.just({})
)


def hostile_configurations(folder: Path, count: int, report: Report) -> None:
    """Changes one to four values of a good configuration, anywhere in its models, and reads it."""
    paths = list(key_paths(PipelineConfig))
    values = st.recursive(
        _ANY, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner), max_leaves=6
    )
    changes = st.lists(st.tuples(st.sampled_from(paths), values), min_size=1, max_size=4)

    def attempt(drawn: list[tuple[tuple[str, ...], Any]]) -> None:
        body = copy.deepcopy(CONFIG)
        for path, value in drawn:
            place: Any = body
            for name in path[:-1]:
                place = place.setdefault(name, {}) if isinstance(place, dict) else {}
            if isinstance(place, dict):
                place[path[-1]] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(body, allow_unicode=False), encoding="utf-8")
        load_config(folder / "config.yaml", folder)

    _try_each(changes, count, attempt, report)


def what_is_no_table(folder: Path, count: int, report: Report) -> None:
    """Surveys and reads, as a log, pipes, links, devices and tables of any type whose times may be of any year."""
    kinds = [
        pa.float16(),
        pa.float64(),
        pa.uint64(),
        pa.date32(),
        pa.timestamp("s"),
        pa.timestamp("us", "UTC"),
        pa.binary_view(),
    ]
    numbers = st.sampled_from([0, 1, 2**31 - 1, 1_704_067_200, 253_402_300_799, -62_135_596_800, 2**53])
    place = folder / "place"

    def attempt(drawn: tuple[str, list[pa.DataType], list[int]]) -> None:
        what, types, values = drawn
        place.unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(place)
        elif what == "table":
            columns = [
                pa.array(values, pa.int64()).cast(pa.string()).to_pylist() if kind == pa.binary_view() else values
                for kind in types
            ]
            with contextlib.suppress(pa.ArrowException, TypeError, OverflowError):
                arrays = [pa.array(column).cast(kind, safe=False) for column, kind in zip(columns, types, strict=True)]
                pq.write_table(pa.table(arrays, ["user_id", "item_id", "event_time"]), place)
        else:
            place.symlink_to(what)
        for name in ("parquet", "csv", "json"):
            source = BehaviorTable(uri=str(place), format=name, constant_event="buy")
            for call in (
                lambda source=source: list(read_days(open_source(source, "behavior_table"), ["2024-01-01"])),
                lambda source=source: SourceLanding(source, name="behavior_table", timezone="Asia/Shanghai").landing_of_day(
                    "2024-01-01"
                ),
                lambda: survey_table(str(place), "behavior_table", is_log=True),
            ):
                with contextlib.suppress(DssmError):
                    call()

    whats = st.sampled_from(["table", "table", "table", "pipe", "/nowhere", "/dev/zero", "/dev/null", str(place)])
    three = st.lists(st.sampled_from(kinds), min_size=3, max_size=3)
    _try_each(st.tuples(whats, three, st.lists(numbers, min_size=1, max_size=4)), count, attempt, report)


def broken_files(folder: Path, count: int, report: Report) -> None:
    """Overwrites bytes of good parquet and csv files, or cuts them off, and reads them as source tables and as vectors."""
    table = pa.table({"user_id": [f"user{n}" for n in range(300)], "vector": [[float(n), 1.0] for n in range(300)]})
    plain = table.select(["user_id"])
    sink, text = pa.BufferOutputStream(), pa.BufferOutputStream()
    pq.write_table(table, sink)
    pcsv.write_csv(plain, text)
    good = {"users.parquet": sink.getvalue().to_pybytes(), "users.csv": text.getvalue().to_pybytes()}
    drawn = st.tuples(st.sampled_from(sorted(good)), st.integers(0, 2**32), st.integers(0, 12), st.booleans())

    def attempt(drawn: tuple[str, int, int, bool]) -> None:
        name, seed, changes, is_cut = drawn
        moves, content = random.Random(seed), bytearray(good[name])
        for _ in range(changes):
            content[moves.randrange(len(content))] = moves.randrange(256)
        (folder / name).write_bytes(content[: moves.randrange(len(content))] if is_cut else content)
        uri = str(folder / name)
        for read in (
            lambda: list(
                read_days(open_source(SourceTable(uri=uri, format=name.rpartition(".")[2]), "user_table"), ["2026-11-22"])
            ),
            lambda: read_parquet(uri, ["user_id", "vector"], "user vectors"),
        ):
            with contextlib.suppress(DssmError):
                read()

    _try_each(drawn, count, attempt, report)


def http_requests(folder: Path, count: int, report: Report) -> None:
    """Sends bodies of any kind to a running service."""
    root = folder / "serving"
    bundles.write_bundle(root, half_life_days=3.0)
    with serving(LiveEngine(str(root)), limits=ServiceLimits(keep_alive_seconds=3600)) as port:
        client = Client(port)

        def attempt(body: Any) -> None:
            status, answer = client.send("POST", "/recall", json.dumps(body))
            assert status in (200, 400, 404), f"status {status}: {answer}"

        _try_each(bodies, count, attempt, report)
        client.close()


def key_files(folder: Path, count: int, report: Report) -> None:
    """Reads files of API keys made of columns that are right, wrong, or in the wrong place; no error shows a key."""
    key, good = "plain-key-of-the-shop", f"shop recall,similar 2999-01-01 sha256:{'0' * 64}"
    columns = st.sampled_from([*good.split(), key, "admin,x", "2024-02-30", "#", *_WORDS])
    lines = st.just(good) | st.lists(columns, max_size=5).map(" ".join)

    def attempt(drawn: list[str]) -> None:
        (folder / "keys.txt").write_text("\n".join(drawn), encoding="utf-8")
        try:
            read_keys(str(folder / "keys.txt"))
        except InputError as error:
            assert key not in str(error)

    _try_each(st.lists(lines, max_size=3), count, attempt, report)


def forged_bundles(folder: Path, count: int, report: Report) -> None:
    """Changes, cuts off or removes a file of a signed bundle, or signs another manifest by another key; none may be opened."""
    keys, other = (Ed25519Keys((key.public_key(),), "", key) for key in (Ed25519PrivateKey.generate() for _ in range(2)))
    place = bundles.write_bundle(folder, has_channels=True, stores_inputs=True)
    good = {path.name: path.read_bytes() for path in place.iterdir()}
    good["manifest.json.sig"] = keys.sign(good["manifest.json"]) or b""
    forged = json.dumps({**json.loads(good["manifest.json"]), "name": "forged"}).encode()
    drawn = st.tuples(st.sampled_from(["changed", "cut", "removed", "signed"]), st.sampled_from(sorted(good)), st.randoms())

    def attempt(drawn: tuple[str, str, random.Random]) -> None:
        kind, name, moves = drawn
        content, position = bytearray(good[name]), moves.randrange(len(good[name]))
        content[position] ^= moves.randrange(1, 256)
        bad = {name: bytes(content if kind == "changed" else content[:position])}
        if kind == "signed":
            bad = {"manifest.json": forged, "manifest.json.sig": other.sign(forged) or b""}
        for path, whole in (good | bad).items():
            (place / path).write_bytes(whole)
        if kind == "removed":
            (place / name).unlink()
        with contextlib.suppress(StorageError, PartitionMissingError):
            RecallEngine.open(str(place), keys=keys)
            raise AssertionError("it was opened")

    _try_each(drawn, count, attempt, report)


def costly_bodies(folder: Path, count: int, report: Report) -> None:
    """Sends up to 32 bodies at once, as large as allowed, of equal entries: lists, objects, faults, conditions."""
    bundles.write_bundle(folder / "costly")
    keys = st.sampled_from(["exclude", "fields", "filters", "user_id", "requests", "other"])
    faults = '{"fields": [' + ",".join(["1"] * 500) + "]}"
    conditions = json.dumps({"filters": [{"colour": number} for number in range(60)]})
    entries = st.sampled_from(["[]", "{}", "1", '"a"', "[[[]]]", '{"a": []}', faults, conditions])
    with serving(LiveEngine(str(folder / "costly"))) as port:

        def attempt(drawn: tuple[str, str, int]) -> None:
            key, entry, times = drawn
            text = f'{{"{key}": [{",".join([entry] * (1_000_000 // (len(entry) + 1)))}]}}'
            _ask_meanwhile(port, "/recall/batch" if key == "requests" else "/recall", text, times)

        _try_each(st.tuples(keys, entries, st.integers(1, 32)), max(count // 20, 10), attempt, report)


def _ask(port: int, path: str, text: str) -> None:
    client = Client(port)
    status, answer = client.send("POST" if text else "GET", path, text or None)
    client.close()
    assert status in (200, 400, 404, 413, 503), f"status {status}: {answer}"


def _ask_in_time(port: int) -> None:
    begin = time.monotonic()
    _ask(port, "/health", "")
    _ask(port, "/recall?user_id=u", "")
    assert time.monotonic() - begin < 5, "an answer was late"


def _ask_meanwhile(port: int, path: str, text: str, times: int) -> None:
    """Sends a body several times at once, and asks for something else in the meantime."""
    with ThreadPoolExecutor(times) as clients:
        asked = [clients.submit(_ask, port, path, text) for _ in range(times)]
        _ask_in_time(port)
    for one in asked:
        one.result()


def service_attacks(folder: Path, count: int, report: Report) -> None:
    """Asks for much, sends deep or broken text, holds connections, replaces a list of the shop: others are answered within 5 seconds."""
    root, blocked = folder / "attacked", folder / "blocked.txt"
    bundles.write_bundle(root)
    blocked.write_text("n3\n", encoding="utf-8")
    live = LiveEngine(str(root), shop_lists=ShopLists(str(blocked)))

    def send_batches(port: int, drawn: tuple[int, int, int]) -> None:
        k, count, times = drawn
        _ask_meanwhile(port, "/recall/batch", json.dumps({"requests": [{"user_id": "u", "k": k}] * count}), times)

    def send_text(port: int, drawn: tuple[int, str, str]) -> None:
        depth, key, text = drawn
        _ask(port, "/recall", f'{{"{key}": {"[" * depth}{json.dumps(text)}{"]" * depth}}}')

    def hold_connections(port: int, drawn: tuple[int, bytes]) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(drawn[0]):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)).sendall(drawn[1])
            _ask_in_time(port)

    def replace_list(_: int, make: Callable[[Path], Any]) -> None:
        bad = folder / f"{make.__name__}-{time.monotonic_ns()}"
        make(bad)
        blocked.unlink()
        blocked.symlink_to(bad)
        live.refresh_lists()
        assert live.state.list_fault, "a bad list is not told"
        blocked.unlink()
        blocked.write_text("n3\n", encoding="utf-8")
        live.refresh_lists()

    texts = st.text(st.characters(), max_size=5)
    answered = st.sampled_from([b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
    attacks = st.one_of(
        st.tuples(st.just(send_batches), st.tuples(st.integers(1, 10_000), st.integers(1, 1000), st.integers(1, 60))),
        st.tuples(
            st.just(send_text), st.tuples(st.integers(0, 3000), st.sampled_from(["filters", "features", "user_id"]), texts)
        ),
        st.tuples(
            st.just(hold_connections), st.tuples(st.integers(1, 600), st.builds(bytes.__add__, answered, st.binary(max_size=9)))
        ),
        st.tuples(st.just(replace_list), st.sampled_from([os.mkfifo, os.mkdir, lambda path: path.write_bytes(b"\xff")])),
    )
    with serving(live) as port:

        def attempt(drawn: tuple[Callable[[int, Any], None], Any]) -> None:
            drawn[0](port, drawn[1])
            _ask_in_time(port)

        _try_each(attacks, max(count // 20, 10), attempt, report)


INPUTS: Final[Mapping[str, Callable[[Path, int, Report], None]]] = {
    "configurations with hostile values": hostile_configurations,
    "what is no table": what_is_no_table,
    "broken parquet and csv files": broken_files,
    "requests with any body": http_requests,
    "files of API keys": key_files,
    "forged bundles": forged_bundles,
    "bodies by cost": costly_bodies,
    "attacks on the running service": service_attacks,
}


def _try_each(strategy: st.SearchStrategy[Any], count: int, attempt: Callable[[Any], None], report: Report) -> None:
    """Makes attempts with drawn values; a typed error is no failure."""

    @hypothesis.seed(17)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(strategy)
    def run(drawn: Any) -> None:
        try:
            attempt(drawn)
        except DssmError:
            report(None)
        except Exception as error:
            report(f"{type(error).__name__}: {str(error)[:200]} for {str(drawn)[:300]}")
        else:
            report(None)

    run()


def key_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yields the paths of all keys of a model and of the models in it."""
    for name, field in model.model_fields.items():
        yield (name,)
        for inner in _models(field.annotation):
            yield from ((name, *path) for path in key_paths(inner))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yields the models of an annotation such as `Section | None`; those in lists and mappings are left out."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            yield from _models(part)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, Enum):
        yield annotation
