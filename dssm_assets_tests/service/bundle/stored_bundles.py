"""Small bundles whose files all hold one mark, shared by the tests of the bundle store."""

from __future__ import annotations

import uuid
from pathlib import Path

from dssm_assets.service.bundle.bundle_store import BundleStore, Published

FILES = 12


def store_of(kind: str, folder: Path) -> BundleStore:
    """Returns an empty store on the local disk or in memory."""
    return BundleStore(str(folder / "serving") if kind == "local" else f"memory://bundles-{uuid.uuid4().hex}")


def publish(store: BundleStore, mark: str, *, ds: str = "2024-01-02", keep: int = 3, files: int = FILES) -> Published:
    """Publishes a bundle all of whose files hold its mark."""
    with store.staging() as folder:
        (folder / "deep").mkdir()
        for number in range(files):
            (folder / ("deep" if number % 2 else ".") / f"file{number}").write_text(f"{mark} {number}")
        return store.publish(folder, {"ds": ds, "mark": mark}, keep)


def marks(store: BundleStore, bundle_id: str) -> set[str]:
    """Returns the marks that the manifest and the files of a bundle hold."""
    manifest = store.manifest(bundle_id)
    contents = [store.fs.cat_file(f"{store.folder(bundle_id)}/{name}").decode() for name in manifest["files"]]
    assert len(contents) == FILES
    return {manifest["mark"], *(content.split()[0] for content in contents)}


def bundles_on_disk(store: BundleStore) -> set[str]:
    return {str(path).rstrip("/").rpartition("/")[2] for path in store.fs.ls(f"{store.root}/bundles", detail=False)}
