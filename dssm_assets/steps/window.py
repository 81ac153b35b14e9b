"""The training window of a day: which daily partitions there are, and whether all are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dssm_assets.core.samples.training_window import TRAINING_WINDOW
from dssm_assets.core.samples.training_window import training_window as describe_window
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests, window_days

WINDOW_TABLES = ("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg")
"""Tables that are read over the window."""
FEATURE_TABLES = ("item_features_fg", "user_features_fg")
"""Tables that samples point into, each day into those of the day before, so that the window starts a day earlier."""


def training_window(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Lists the window of each day and checks that it is whole."""
    start = workspace.config.calendar.start.isoformat()
    for ds in days:
        wanted = {table: window_days(ds, workspace.config.window.days) for table in WINDOW_TABLES}
        eves = [eve for eve in window_days(ds, workspace.config.window.days + 1) if eve >= start]
        wanted |= {table: eves or [day_before(ds)] for table in FEATURE_TABLES}
        manifests = {table: {day: workspace.find(table, day) for day in listed} for table, listed in wanted.items()}
        found = {
            table: {day: None if manifest is None else (manifest.rows, manifest.digest) for day, manifest in listed.items()}
            for table, listed in manifests.items()
        }
        table, report = describe_window(found, start, workspace.tables.partitions.days("user_features_fg"))
        inputs = digests(manifest for listed in manifests.values() for manifest in listed.values() if manifest is not None)
        standing = workspace.find(TRAINING_WINDOW.name, ds)
        # A window that is not whole never takes the place of one that was.
        if standing is not None and not report.is_complete:
            manifest = standing
        else:
            manifest = workspace.tables.write(TRAINING_WINDOW, ds, table, inputs=inputs)
        facts = {
            "window_days": workspace.config.window.days,
            "missing_days": {key: list(value) for key, value in report.missing.items()},
        }
        check = Check("window_complete", report.is_complete, report.sentence, facts)
        yield StepResult(manifest, {"window_days": workspace.config.window.days}, (check,))
