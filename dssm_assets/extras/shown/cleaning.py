"""What a cleanup and a request to forget users do to the log."""

from __future__ import annotations

from dssm_assets.defs.scene import today_in
from dssm_assets.extras.shown.log_folder import open_log
from dssm_assets.steps.workspace import Workspace, day_before

_ASSET = "shown"


def on_cleaned(workspace: Workspace, before: float, *, removes: bool) -> set[str]:
    """Removes days older than `serving.shown.keep_days` of the log and the asset, and rows of hidden users; returns no files.

    Days count back from the log's newest day, at most today: clocks that jump remove nothing.
    """
    settings = workspace.config.serving.shown
    if settings is None or not removes:
        return set()
    log, store, today = open_log(workspace.loaded), workspace.tables.partitions, today_in("UTC").isoformat()
    hidden, days = store.hidden.read(), log.days()
    newest = max((ds for ds in days if ds <= today), default=today)
    first = max(day_before(newest, settings.keep_days - 1), hidden.first_day)
    for ds in days:
        if ds < first:
            log.fs.rm(log.folder(ds), recursive=True)
        else:
            log.clean_day(ds, hidden, has_ended=ds < today)
    for ds in store.days(_ASSET):
        if ds < first:
            store.remove(_ASSET, ds)
    return set()


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the folders of logs that the configuration no longer names."""
    store = workspace.tables.partitions
    noted = {f"log of shown items {one.facts['log']}" for one in store.find_days(_ASSET, store.days(_ASSET)).values()}
    is_configured = workspace.config.serving.shown is not None
    return sorted(noted - ({f"log of shown items {open_log(workspace.loaded).uri}"} if is_configured else set()))
