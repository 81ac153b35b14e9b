"""Requests are retried while a store restarts; one that was never there, or is away for too long, is an error within its time limit."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.exceptions import EndpointConnectionError

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import InputError
from dssm_assets.storage import locations
from dssm_assets.storage.locations import open_location
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.source_files import open_source

QUICK = {"connect_timeout": 1, "retries": {"max_attempts": 0}}
"""Without the waits of botocore, which are random: it repeats four times in production, fewer than the faults here."""
LISTING = (
    b"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>log.parquet</Key><Size>4</Size>"
    b"<LastModified>2026-11-22T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
)


class _Store(ThreadingHTTPServer):
    """An object store with one object of four bytes; its next `faults` requests are answered with `status`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0, faults: int = 0, status: int = 500) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults, self.status, self.asked = faults, status, 0


class _Handler(BaseHTTPRequestHandler):
    server: _Store

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.faults -= 1
        fails, lists = self.server.faults >= 0, "list-type" in self.path
        content = b"" if fails else LISTING if lists else b"1234"
        self.send_response(self.server.status if fails else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else content)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Keeps requests out of the output."""


@contextmanager
def _serving(store: _Store) -> Iterator[dict[str, object]]:
    """Yields the options by which a running store is reached."""
    thread = threading.Thread(target=store.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield _options(store.server_port)
    finally:
        store.shutdown()
        store.server_close()
        thread.join()


def _options(port: int) -> dict[str, object]:
    return {
        "key": "k",
        "secret": "s",
        "endpoint_url": f"http://127.0.0.1:{port}",
        "config_kwargs": QUICK,
        "skip_instance_cache": True,
    }


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "WAIT_SECONDS", 0.01)


@pytest.mark.parametrize("status", [500, 503])
def test_source_table_is_read_although_the_store_answers_with_faults_for_a_while(status: int) -> None:
    store = _Store(faults=12, status=status)
    with _serving(store) as options:
        folder = open_source(SourceTable(uri="s3://bucket/log.parquet", storage_options=options), "behavior_table")
        (file,) = folder.pieces()
        store.faults = 12
        assert folder.fs.cat_file(file.path) == b"1234"
        store.faults = 12
        assert folder.fs.find("bucket", refresh=True) == ["bucket/log.parquet"]
        store.faults = 12
        assert PartitionStore("s3://bucket/tables", options).fs.cat_file("bucket/log.parquet", start=0) == b"1234"
    assert store.faults < 0


def test_store_that_takes_no_connections_is_waited_for_once_it_has_answered() -> None:
    store = _Store()
    with _serving(store) as options:
        fs, path = open_location("s3://bucket/log.parquet", "table", options)
        assert fs.cat_file(path, start=0) == b"1234"

    def start_again() -> None:
        time.sleep(0.3)
        restarted.append(_Store(store.server_port))
        restarted[0].serve_forever(0.01)

    restarted: list[_Store] = []
    thread = threading.Thread(target=start_again, daemon=True)
    thread.start()
    try:
        assert fs.cat_file(path, start=0) == b"1234"
    finally:
        restarted[0].shutdown()
        restarted[0].server_close()
        thread.join()


def test_store_that_stays_away_is_an_error_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locations, "RESTART_SECONDS", 0.5)
    store = _Store()
    with _serving(store) as options:
        fs, path = open_location("s3://bucket/log.parquet", "table", options)
        fs.cat_file(path, start=0)
        store.faults = 10**9
        with pytest.raises(InputError, match="place that can be used"):
            open_source(SourceTable(uri="s3://bucket/log.parquet", storage_options=options), "behavior_table")
    with pytest.raises(EndpointConnectionError):
        fs.cat_file(path, start=0)


def test_store_that_never_answered_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    store = _Store()
    store.server_close()
    fs, path = open_location("s3://bucket/log.parquet", "table", _options(store.server_port))
    with pytest.raises(EndpointConnectionError):
        fs.cat_file(path, start=0)
    assert waits == []


def test_a_missing_file_is_asked_for_once() -> None:
    store = _Store(faults=10**9, status=404)
    with _serving(store) as options:
        fs, path = open_location("s3://bucket/log.parquet", "table", options)
        with pytest.raises(FileNotFoundError):
            fs.cat_file(path, start=0)
    assert store.asked == 1


def test_a_filesystem_that_was_sent_to_a_process_waits_too() -> None:
    fs, _ = open_location("s3://bucket/log.parquet", "table", {"key": "k", "secret": "s", "profile": "shop"})
    assert pickle.loads(pickle.dumps(fs)).session is locations.open_s3_session("shop") is fs.session
