"""Attempts of the campaign on what others hold: places that a service watches, stores and catalogs that are away or locked, users to be
forgotten.

Each attempt ends as it would without them, or with a typed error; what is put right serves again.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count as numbers_from
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.features.expressions import Kind
from dssm_assets.extras.iceberg_catalog import hooks
from dssm_assets.extras.retention.forget import forget
from dssm_assets.extras.signatures.ed25519 import Ed25519Keys
from dssm_assets.extras.vector_stores import search
from dssm_assets.extras.vector_stores.search import choose_search
from dssm_assets.service.engine import live as live_module
from dssm_assets.service.engine import watches
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.hostile_inputs import Report
from dssm_assets_tests.extras.iceberg_catalog.tables import find_table, open_published, put, users
from dssm_assets_tests.extras.iceberg_catalog.test_hooks import materialized
from dssm_assets_tests.extras.retention import auditor
from dssm_assets_tests.extras.retention.forgetting import GONE, HASHES, write_world
from dssm_assets_tests.extras.vector_stores.conftest import postgres_server
from dssm_assets_tests.extras.vector_stores.test_search import choose_store, fill, hanging
from dssm_assets_tests.service import bundles
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle
from dssm_assets_tests.service.http.servers import Client, key_line, serving, write_keys
from dssm_assets_tests.storage.stores import verify
from dssm_assets_tests.worlds import DAYS

_SPOILED: Final[Mapping[str, Callable[[Path], Any]]] = {
    "a pipe": os.mkfifo,
    "a folder": os.mkdir,
    "garbage": lambda path: path.write_bytes(b"\xff<html>"),
    "no file": lambda path: None,
}
_OF_BUNDLES: Final = ("manifest.json.sig", "manifest.json", "item_ids.arrow", "item_index.faiss")
_WATCHED: Final = ("current.json", "forgotten.json", "keys.txt", "blocked.txt")


def watched_places(folder: Path, count: int, report: Report) -> None:
    """Spoils a file of a new signed bundle, or a place that a service looks at: it says so and answers as before, until it is put right."""
    key, moves, days = Ed25519PrivateKey.generate(), random.Random(17), numbers_from(1)
    keys = Ed25519Keys((key.public_key(),), "", key)

    def write_signed() -> Path:
        place = bundles.write_bundle(folder, is_current=False, mark=next(days))
        (place / "manifest.json.sig").write_bytes(keys.sign((place / "manifest.json").read_bytes()) or b"")
        return place

    bundles.point_to(folder, write_signed().name)
    (folder / "blocked.txt").write_text("n3\n", encoding="utf-8")
    api_keys = write_keys(folder, key_line("k" * 16))
    with ExitStack() as stack:
        for module, name in ((watches, "LEAST_SILENT_SECONDS"), (live_module, "RETRY_SECONDS")):
            stack.enter_context(mock.patch.object(module, name, 0.2))
        lists = ShopLists(str(folder / "blocked.txt"))
        live = LiveEngine(str(folder), check_seconds=0.02, shop_lists=lists, keys=keys)
        live.watches.add("the API keys", api_keys.refresh, 0.02)
        client = stack.enter_context(closing(Client(stack.enter_context(serving(live)))))

        def attempt(name: str, kind: str) -> None:
            served = live.bundle_id
            fresh = write_signed() if name in _OF_BUNDLES else None
            path = (fresh or folder) / name
            before = path.read_bytes() if path.exists() else None
            path.unlink(missing_ok=True)
            _SPOILED[kind](path)
            if fresh is not None:
                bundles.point_to(folder, fresh.name)
            if before is not None or kind != "no file":
                _wait(lambda: client.get("/health")[1]["status"] == "stale", f"{name} is {kind}: not told")
            assert client.get("/recall?user_id=u")[1]["bundle_id"] == served, f"{name} is {kind}: not as before"
            shutil.rmtree(path) if kind == "a folder" else path.unlink(missing_ok=True)
            if before is not None:
                path.write_bytes(before)
            wanted = served if fresh is None else fresh.name
            _wait(lambda: client.get("/health")[1]["status"] == "ok" and live.bundle_id == wanted, f"{name}: not taken again")

        for _ in range(max(count // 20, 10)):
            _try(report, partial(attempt, moves.choice([*_OF_BUNDLES, *_WATCHED]), moves.choice(list(_SPOILED))))


def stores_away(folder: Path, count: int, report: Report) -> None:
    """A service whose vector store is locked, frozen or gone: its lists are refused in time, others and /health are answered."""
    seconds, moves, root = 3.0, random.Random(17), str(folder / "serving")
    bundles.write_bundle(Path(root), inputs={"dssm_model/2024-01-12": "digest"})
    with ExitStack() as stack:
        for name, value in (("_LATE_SECONDS", 0.5), ("_PAUSE_SECONDS", 0.5)):
            stack.enter_context(mock.patch.object(search, name, value))
        places = {"postgres": stack.enter_context(postgres_server())(), "lance": f"lancedb://{folder}/lance"}
        clients = {}
        for name, uri in places.items():
            fill(choose_store(uri), root)
            live = LiveEngine(root, open_search=partial(choose_search(uri, None), seconds=seconds))
            port = stack.enter_context(serving(live, ServiceLimits(request_seconds=seconds, keep_alive_seconds=3600)))
            clients[name] = stack.enter_context(closing(Client(port)))

        def attempt(kind: str) -> None:
            client = clients["lance" if kind == "gone" else "postgres"]
            gone = _moved_away(folder / "lance") if kind == "gone" else hanging(places["postgres"], is_frozen=kind == "frozen")
            with gone:
                begun = time.monotonic()
                found = [client.get(path)[0] for path in ("/recall?user_id=u&k=3", "/recall?user_id=nobody&k=3", "/health")]
                assert found == [503, 200, 200], f"{kind}: {found}"
                assert time.monotonic() - begun < seconds + 2, f"{kind}: late"
            _wait(lambda: client.get("/recall?user_id=u&k=3")[0] == 200, f"{kind}: not asked again")

        for _ in range(max(count // 100, 3)):
            _try(report, partial(attempt, moves.choice(["locked", "frozen", "gone"])))


def catalogs_away(folder: Path, count: int, report: Report) -> None:
    """Stores a table whose catalog is no database, a folder, or locked: it is stored whole, and registered by the next cleanup."""
    workspace, published = open_published(folder)
    put(workspace, DAYS[0], [0])
    published.sync("user_all_feature")
    database, moves, store = workspace.loaded.home / "iceberg.db", random.Random(17), workspace.tables.partitions

    def attempt(number: int, kind: str) -> None:
        lines: list[str] = []
        with _locked(database) if kind == "locked" else _moved_away(database, _SPOILED[kind]):
            put(workspace, DAYS[0], [number])
            materialized(open_workspace(workspace.loaded, lines.append), ds=DAYS[0])
        assert any("stored, but not registered in the catalog" in line for line in lines), f"{kind}: not told"
        verify(store, store.need("user_all_feature", DAYS[0]))
        hooks.on_cleaned(workspace, 0.0, removes=True)
        assert users(find_table(published)) == {DAYS[0]: [number]}, f"{kind}: not registered later"

    for number in range(1, max(count // 200, 3) + 1):
        _try(report, partial(attempt, number, moves.choice(["garbage", "a folder", "locked"])))


def forgotten_users(folder: Path, count: int, report: Report) -> None:
    """Forgets one or both of two users: an auditor of all files finds nothing of theirs that the receipt does not name."""
    publish_bundle(worlds.build_all(write_world(folder / "built")))
    for number, names in enumerate([["a6"], [worlds.NO_PROFILE], list(GONE)][: max(count // 100, 1)]):
        copied = shutil.copytree(folder / "built", folder / f"{number}", symlinks=True)
        ids = [GONE[name] for name in names]
        hashes = [HASHES[place] for place, name in enumerate([*GONE, "a6"]) if name in names]
        before = auditor.find_marks(copied, ids, hashes)
        receipt = forget(open_workspace(load_config(copied / "config.yaml", copied / "home")), pa.array(sorted(ids)))
        found = auditor.find_marks(copied, ids, hashes)
        named = [name.split()[name.startswith("bundle ")] for name in receipt.values[Kind.CATEGORICAL]]
        for path in sorted({*before, *found}):
            marks = found.get(path, set())
            is_source = path in ("source/users.parquet", "home/source/behavior.csv")
            is_named = marks.isdisjoint(ids) and any(f"/{name}/" in path for name in named)
            report(None if not marks or is_source or is_named else f"{path} has {marks} after forgetting {ids}")


NEIGHBOURS: Final[Mapping[str, Callable[[Path, int, Report], None]]] = {
    "places that a signed service watches": watched_places,
    "vector stores locked, frozen, away": stores_away,
    "catalogs locked or away": catalogs_away,
    "files audited after forget": forgotten_users,
}


def _try(report: Report, attempt: Callable[[], None]) -> None:
    try:
        attempt()
    except Exception as error:
        report(f"{type(error).__name__}: {str(error)[:300]}")
    else:
        report(None)


def _wait(is_so: Callable[[], bool], otherwise: str) -> None:
    limit = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < limit, otherwise
        time.sleep(0.02)


@contextmanager
def _moved_away(path: Path, put_instead: Callable[[Path], Any] = lambda path: None) -> Iterator[None]:
    aside = path.rename(path.with_name(f"{path.name}.aside"))
    put_instead(path)
    try:
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        aside.rename(path)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
