"""The campaign's parts that need no server, with a few attempts; the proxy; the table and the exit status."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.benchmarks import campaign
from dssm_assets_tests.benchmarks.faulty_proxy import faulty_proxy
from dssm_assets_tests.storage.races import publish_mark


def test_few_kills_find_no_fault(tmp_path: Path) -> None:
    rows = list(campaign.kills(tmp_path, campaign.Limits(0.02)))
    assert [(row.tried, row.failed) for row in rows] == [(5, []), (5, [])]


@pytest.mark.parametrize("part", [campaign.cleanups, campaign.damage])
def test_few_attacks_on_what_is_stored_find_no_fault(part: Callable[..., Iterator[campaign.Row]], tmp_path: Path) -> None:
    rows = list(part(tmp_path, campaign.Limits(0.05, seconds=2)))
    assert [row.failed for row in rows] == [[] for _ in rows]
    assert min(row.tried for row in rows) >= 10


def test_attempt_notes_a_partition_that_differs_from_its_manifest(tmp_path: Path) -> None:
    store = PartitionStore(str(tmp_path))
    manifest = publish_mark(store, "x")
    row = campaign.Row("kill")
    campaign._attempt(row, campaign._check_partition, tmp_path)
    Path(store.file_path(manifest, manifest.files[0])).write_text("y 0")
    campaign._attempt(row, campaign._check_partition, tmp_path)
    assert row.tried == 2
    assert len(row.failed) == 1 and "differ from the manifest" in row.failed[0]
    assert campaign.table([row]).splitlines()[-2:] == ["| kill | 2 | 1 |  | 0 |", "| together | 2 | 1 | | 0 |"]


class _Store(http.server.ThreadingHTTPServer):
    """Counts the requests that it has answered."""

    asked = 0


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Store

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keeps the output clean."""


def _put(url: str) -> str:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("PUT", "/key", b"body")
        return str(connection.getresponse().status)
    except (http.client.HTTPException, ConnectionError):
        return "broken"
    finally:
        connection.close()


def test_proxy_fails_requests_in_three_ways() -> None:
    with _Store(("127.0.0.1", 0), _Handler) as store:
        threading.Thread(target=store.serve_forever, daemon=True).start()
        with faulty_proxy(f"http://127.0.0.1:{store.server_port}", 1.0) as broken:
            answers = [_put(broken.url) for _ in range(40)]
        store.shutdown()
    assert set(answers) == {"503", "broken"}
    assert 0 < store.asked < answers.count("broken"), "some answers were lost after the store had done its work"
