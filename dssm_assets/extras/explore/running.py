"""Where the page of a home runs on this machine: a file in our temporary folder, which the page's process locks as long as it lives."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_assets.storage.local_files import find_own_folder

if TYPE_CHECKING:
    import dagster as dg

    from dssm_assets.defs.asset_run import AssetRun
    from dssm_assets.steps.workspace import StepResult, Workspace


def _find_file(home: Path, *, makes: bool) -> Path | None:
    folder = find_own_folder(Path(tempfile.gettempdir()), makes=makes)
    return folder and folder / f"explore-{hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]}"


def announce_page(home: Path, url: str) -> None:
    """Notes the page of a home until this process ends, also as another program (exec). The last of several pages is noted."""
    if (path := _find_file(home, makes=True)) is not None:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.set_inheritable(handle, True)
        fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, url.encode())


def find_page(home: Path) -> str | None:
    """Returns the address of a home's page; None if none runs on this machine."""
    path = _find_file(home, makes=False)
    if path is None or not path.is_file():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
    return None


def on_materialized(
    context: dg.AssetExecutionContext, run: AssetRun, workspace: Workspace, results: Sequence[StepResult]
) -> None:
    """Links a bundle to the page of its home, if it runs."""
    if run.row.name == "serving_bundle" and (url := find_page(workspace.loaded.home)) is not None:
        import dagster as dg

        link = {"page": dg.MetadataValue.url(f"{url}/?view=A%20session")}
        for result in results:
            context.add_asset_metadata(link, run.scene.key(run.row.name), partition_key=result.manifest.ds)
