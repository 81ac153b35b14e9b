"""The cache of fetched files: once each, never half, bounded."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from dssm_assets.storage.local_cache import IN_USE_SECONDS, LocalCache


def _writes(content: bytes, calls: list[str] | None = None) -> Callable[[str], None]:
    def fetch(path: str) -> None:
        Path(path).write_bytes(content)
        if calls is not None:
            calls.append(path)

    return fetch


def _names(cache: LocalCache) -> set[str]:
    return {path.relative_to(cache.folder).as_posix() for path in cache.folder.rglob("*") if path.is_file()}


def _age(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    cache, calls = LocalCache(tmp_path), []
    paths = {cache.get("model/abc/model.pt", _writes(b"weights", calls)) for _ in range(3)}
    assert paths == {tmp_path / "model/abc/model.pt"}
    assert len(calls) == 1
    assert paths.pop().read_bytes() == b"weights"


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("connection lost")

    cache = LocalCache(tmp_path)
    with pytest.raises(OSError, match="connection lost"):
        cache.get("model/abc/model.pt", half)
    assert _names(cache) == set()


def test_two_who_want_the_same_file_at_once_each_get_it_whole(tmp_path: Path) -> None:
    cache, both = LocalCache(tmp_path), Barrier(2)

    def fetch(path: str) -> None:
        both.wait(10)
        Path(path).write_bytes(b"weights" * 1000)
        both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: cache.get("model/abc/model.pt", fetch), range(2)))
    assert [path.read_bytes() for path in paths] == [b"weights" * 1000] * 2
    assert _names(cache) == {"model/abc/model.pt"}


def test_the_file_asked_for_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, limit_bytes=25)
    for place, name in enumerate(("first", "second")):
        _age(cache.get(name, _writes(b"0123456789")), (3 - place) * IN_USE_SECONDS)
    cache.get("first", _writes(b""))  # asked for again, so now the younger one
    cache.get("third", _writes(b"0123456789"))
    assert _names(cache) == {"first", "third"}


def test_what_may_be_about_to_be_opened_stays(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, limit_bytes=5)
    cache.get("first", _writes(b"0123456789"))
    cache.get("second", _writes(b"0123456789"))
    assert _names(cache) == {"first", "second"}
