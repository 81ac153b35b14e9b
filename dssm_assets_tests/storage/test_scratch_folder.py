"""Temporary folders: removed in every regular way, and found once the process that made them was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.storage.local_files import ScratchFolder, find_abandoned, find_own_folder

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
