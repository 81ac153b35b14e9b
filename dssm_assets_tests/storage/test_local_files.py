"""Local files: mapped arrays, atomic replacement, and temporary folders, found once the process that made them was killed."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dssm_assets.storage.local_files import (
    ScratchArrays,
    ScratchFile,
    ScratchFolder,
    find_abandoned,
    find_own_folder,
    write_atomic,
)


def test_scratch_arrays_keep_values_in_files_of_the_folder(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    first, second = make(3, np.int64), make(2, np.int32)
    first[:] = [5, -1, 7]
    second[:] = 9
    assert (first.tolist(), second.tolist()) == ([5, -1, 7], [9, 9])
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [8, 24]


def test_an_empty_scratch_array_has_no_file(tmp_path: Path) -> None:
    assert ScratchArrays(tmp_path)(0, np.int32).tolist() == []
    assert list(tmp_path.iterdir()) == []


def test_concat_returns_one_array(tmp_path: Path) -> None:
    make = ScratchArrays(tmp_path)
    whole = make.concat((np.array(part) for part in ([1, 2], [], [3])), np.int32)
    assert (whole.tolist(), whole.dtype) == ([1, 2, 3], np.int32)
    assert make.concat(iter([]), np.int32).tolist() == []


def test_scratch_file_opens_an_array_or_a_prefix_of_it(tmp_path: Path) -> None:
    array = ScratchArrays(tmp_path)(3, np.int64)
    array[:] = [4, 5, 6]
    assert ScratchFile.from_array(array[:2]).open().tolist() == [4, 5]
    assert ScratchFile.from_array(array[:0]).open().tolist() == []
    with pytest.raises(TypeError, match="an array of ScratchArrays, got ndarray"):
        ScratchFile.from_array(np.arange(3))


def test_write_atomic_creates_the_folder_and_a_file_that_all_can_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "manifest.json"
    write_atomic(path, [b"one ", b"two"])
    assert path.read_bytes() == b"one two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["manifest.json"]


def test_write_atomic_takes_a_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomic("day.config", [b"x"])
    write_atomic(Path("day.config"), [b"y"])
    assert (tmp_path / "day.config").read_bytes() == b"y"


def test_write_atomic_leaves_no_piece_of_a_file_and_readers_what_they_have_opened(tmp_path: Path) -> None:
    path, limits = tmp_path / "part.parquet", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, [bytes(8192)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [], "half of it had been written"
    write_atomic(path, [b"ha"])
    with path.open("rb") as opened:
        write_atomic(path, [memoryview(b"half and whole")])
        assert (opened.read(), path.read_bytes()) == (b"ha", b"half and whole")


def test_write_atomic_leaves_the_existing_file_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, [b"before"])

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, broken())
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dssm_assets.storage.local_files import ScratchFolder
made = ScratchFolder("fit", Path(sys.argv[1]))
(made.path / "weights").write_bytes(b"1234")
os.kill(os.getpid(), signal.SIGKILL)
"""
LEFT_OPEN = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "")


def _run(code: str, folder: Path) -> int:
    return subprocess.run([sys.executable, "-c", code, str(folder)], check=False, timeout=60).returncode


def _own(parent: Path) -> Path:
    return parent / f"dssm-assets-{os.geteuid()}"


def test_folder_of_a_killed_process_is_found_once_it_is_old_enough(tmp_path: Path) -> None:
    assert _run(KILLED, tmp_path) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == [_own(tmp_path)] == [find_own_folder(tmp_path)]
    mark, left = sorted(_own(tmp_path).iterdir())
    assert (mark.name, left.name.rpartition("-")[0], mark.parent.stat().st_mode & 0o777) == (".dssm-assets", "fit", 0o700)
    assert list(find_abandoned(mark.parent, time.time() - 60)) == []
    assert list(find_abandoned(mark.parent, time.time() + 60)) == [left]
    assert list(find_abandoned(mark.parent, time.time() + 60, "fi")) == []


def test_folder_of_a_living_process_is_never_found(tmp_path: Path) -> None:
    with ScratchFolder("source", tmp_path) as path:
        os.utime(path, (0, 0))
        assert list(find_abandoned(path.parent, time.time() + 60)) == []
    assert not path.exists()


def test_folder_is_removed_when_its_process_ends(tmp_path: Path) -> None:
    assert _run(LEFT_OPEN, tmp_path) == 0
    assert [path.name for path in _own(tmp_path).iterdir()] == [".dssm-assets"]


@pytest.mark.parametrize("kind", ["folder", "link", "link with a mark", "file", "another user's"])
def test_what_somebody_else_has_made_in_the_name_of_our_folder_is_not_ours(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, theirs = _own(tmp_path), tmp_path / "theirs"
    theirs.mkdir()
    if kind == "file":
        own.write_bytes(b"1234")
    elif kind == "folder":
        (own / "fit-photos").mkdir(parents=True)
    elif kind == "another user's":
        user = os.geteuid()
        assert find_own_folder(tmp_path, makes=True) == own
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        own = own.rename(_own(tmp_path))
    else:
        own.symlink_to(theirs)
        (theirs / "fit-photos").mkdir()
        if "mark" in kind:
            (theirs / ".dssm-assets").touch()
    before = sorted(tmp_path.rglob("*"))
    with ScratchFolder("fit", tmp_path) as path:
        assert (path.parent, path.stat().st_mode & 0o777) == (tmp_path, 0o700)
        assert find_own_folder(tmp_path) is None
    assert sorted(tmp_path.rglob("*")) == before


def test_each_use_renews_the_mark(tmp_path: Path) -> None:
    mark = _own(tmp_path) / ".dssm-assets"
    with ScratchFolder("fit", tmp_path):
        os.utime(mark, (0, 0))
        with ScratchFolder("fit", tmp_path):
            assert mark.stat().st_mtime > 0
    mark.unlink()
    with ScratchFolder("fit", tmp_path) as path:
        assert mark.exists() and path.parent == _own(tmp_path), "it was empty"


def test_change_deep_inside_keeps_a_folder(tmp_path: Path) -> None:
    inside = tmp_path / "fit-x" / "a" / "b"
    inside.mkdir(parents=True)
    (inside / "c").touch()
    for path in (inside, inside.parent, inside.parent.parent):
        os.utime(path, (0, 0))
    now = time.time()
    assert list(find_abandoned(tmp_path, now - 60)) == []
    os.utime(inside / "c", (now - 120, now - 120))
    assert list(find_abandoned(tmp_path, now - 60)) == [tmp_path / "fit-x"]


def test_a_cleanup_and_a_process_that_has_not_locked_its_folder_yet_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, removed = tempfile.mkdtemp, list[str]()

    def make_and_clean(**options: Any) -> str:
        path = make(**options)
        for found in [] if removed else find_abandoned(_own(tmp_path), time.time() + 60):
            assert list(find_abandoned(_own(tmp_path), time.time() + 60)) == [], "it is locked while it is removed"
            shutil.rmtree(found)
            removed.append(str(found))
        return str(path)

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_clean)
    with ScratchFolder("fit", tmp_path) as path:
        assert len(removed) == 1
        assert path.is_dir() and str(path) not in removed
        assert list(find_abandoned(_own(tmp_path), time.time() + 60)) == []
