"""Publishing partitions atomically, locally and in memory; windows; verification; requests to a remote store."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dssm_assets import installed_extras
from dssm_assets.core.errors import ConfigError, PartitionMissingError, WindowIncompleteError
from dssm_assets.storage import partitions
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.storage.stores import DS, files_of, stores, verify


def publish(store, contents, ds=DS, **more) -> Manifest:
    with store.staging() as folder:
        staged = []
        for name, content in contents.items():
            path = folder / name
            path.write_bytes(content)
            staged.append((path, len(content)))
        return store.publish(asset="model", ds=ds, staged=staged, **more)


def contents(store, manifest):
    return {file.name: store.fs.cat_file(store.file_path(manifest, file)) for file in manifest.files}


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return stores(tmp_path)[request.param]


def test_partitions_of_several_days_are_found_together(store):
    first, last = publish(store, {"a": b"1"}, "2024-01-01"), publish(store, {"a": b"3"}, "2024-01-03")
    assert store.find_days("model", ["2024-01-01", "2024-01-02", "2024-01-03"]) == {first.ds: first, last.ds: last}
    assert store.find_days("model", []) == {}


def test_the_digest_of_an_asset_s_settings_is_recorded(store):
    store.settings = {"model": "5e77"}
    assert publish(store, {"a": b"1"}).settings == store.need("model", DS).settings == "5e77"
    store.settings = {"other": "5e77"}
    publish(store, {"a": b"1"})
    assert store.need("model", DS).settings == ""


def test_a_published_partition_is_found(store):
    manifest = publish(store, {"a.bin": b"one", "b.bin": b"two"}, inputs={"sample/2024-01-01": "ff"}, facts={"seed": 3})
    found = store.need("model", DS)
    assert found == manifest
    assert contents(store, found) == {"a.bin": b"one", "b.bin": b"two"}
    assert [(file.bytes, file.rows) for file in found.files] == [(3, 3), (3, 3)]
    assert (found.inputs, found.facts) == ({"sample/2024-01-01": "ff"}, {"seed": 3})


def test_publish_removes_replaced_files_after_the_grace_period(store):
    before = publish(store, {"a.bin": b"one", "b.bin": b"two"})
    after = publish(store, {"a.bin": b"one", "b.bin": b"three"})
    assert contents(store, after) == {"a.bin": b"one", "b.bin": b"three"}
    assert contents(store, before) == {"a.bin": b"one", "b.bin": b"two"}
    store.grace_seconds = 0
    after = publish(store, {"a.bin": b"one", "b.bin": b"four"})
    names = {path.rpartition("/")[2] for path in files_of(store)}
    assert names == {"_manifest.json", *(file.path for file in after.files)}


def test_shared_files_are_listed_by_many_days_and_never_removed(store):
    first = publish(store, {"a.bin": b"one"}, ds="2024-01-01", is_shared=True)
    second = store.publish_shared(first, "2024-01-02")
    assert second.digest == first.digest
    assert second.ds == "2024-01-02"
    publish(store, {"a.bin": b"other"}, ds="2024-01-01")
    assert contents(store, store.need("model", "2024-01-02")) == {"a.bin": b"one"}
    assert contents(store, store.need("model", "2024-01-01")) == {"a.bin": b"other"}


def test_days_are_those_with_a_visible_partition(store):
    assert store.days("model") == []
    for ds in ("2024-01-03", "2024-01-01"):
        publish(store, {"a.bin": b"one"}, ds=ds)
    for folder in ("ds=2024-01-02", "other"):
        store.fs.makedirs(f"{store.root}/model/{folder}", exist_ok=True)
        store.fs.pipe_file(f"{store.root}/model/{folder}/a.bin", b"stored, never published")
    assert store.days("model") == ["2024-01-01", "2024-01-03"]


def test_a_missing_partition_error_names_the_command(store):
    assert store.find("model", DS) is None
    with pytest.raises(
        PartitionMissingError, match=r"no partition for 2024-01-02.*materialize model --from 2024-01-02 --with-upstream"
    ):
        store.need("model", DS)


def test_an_incomplete_window_names_every_missing_day_and_the_command(store):
    publish(store, {"a.bin": b"one"}, ds="2024-01-02")
    with pytest.raises(WindowIncompleteError) as caught:
        store.need_all("model", ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"])
    message = str(caught.value)
    assert "table model" in message
    assert "no partition for 2024-01-01, 2024-01-03, 2024-01-04." in message
    assert "dssm-assets materialize model --from 2024-01-01 --to 2024-01-04" in message


def test_a_failure_before_the_manifest_leaves_the_existing_partition(store, monkeypatch):
    before = publish(store, {"a.bin": b"one"})
    seen = files_of(store)

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr(partitions, "put_if", refuse)
    with pytest.raises(OSError, match="disk full"):
        publish(store, {"a.bin": b"two"})
    assert store.need("model", DS) == before
    assert {path: content for path, content in files_of(store).items() if path in seen} == seen
    verify(store, before)


KILLED = textwrap.dedent(
    """
    import os, pathlib, signal, sys
    from dssm_assets.storage import partitions
    store = partitions.PartitionStore(sys.argv[1])
    partitions.put_if = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with store.staging() as folder:
        path = folder / "a.bin"
        path.write_bytes(b"two")
        store.publish(asset="model", ds=sys.argv[2], staged=[(path, 1)])
    """
)


def test_a_process_killed_before_the_manifest_leaves_the_existing_partition(tmp_path):
    store = PartitionStore(str(tmp_path))
    before = publish(store, {"a.bin": b"one"})
    seen = files_of(store)
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), DS], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    now = files_of(store)
    assert b"two" in now.values(), "the file was stored before the process died"
    assert {path: now[path] for path in seen} == seen
    assert contents(store, store.need("model", DS)) == {"a.bin": b"one"}
    verify(store, before)
    after = publish(store, {"a.bin": b"two"})
    assert contents(store, store.need("model", DS)) == {"a.bin": b"two"}
    verify(store, after)


def test_a_list_that_no_extra_reads_stops_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_extras, "find_extras", dict)
    assert PartitionStore(str(tmp_path)).find("behavior", "2024-01-01") is None
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "forgotten.json").write_text('{"hashes": ["0123456789abcdef"]}')
    with pytest.raises(ConfigError, match="the extra retention"):
        PartitionStore(str(tmp_path)).find("behavior", "2024-01-01")
