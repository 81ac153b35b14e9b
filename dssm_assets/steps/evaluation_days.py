"""Which evaluation days have something to evaluate, known before anything is trained for them."""

from __future__ import annotations

from dssm_assets.steps.workspace import Workspace, truth_days, window_days


def reason_to_skip(workspace: Workspace, ds: str) -> str | None:
    """Returns why an evaluation day has nothing to evaluate or to train on; None if it has, or if that is not known yet.

    It is known once positive_sample of the day is stored. Reads manifests only.
    """
    config = workspace.config
    span = truth_days(ds, config.evaluation.span_days)
    what = f"the day {ds}" if len(span) == 1 else f"the days {span[0]} to {span[-1]} (evaluation.span_days {len(span)})"
    found = [workspace.find("positive_sample", day) for day in span]
    missing = [day for day, manifest in zip(span, found, strict=True) if manifest is None]
    if len(span) > 1 and missing:
        last = config.calendar.end
        if last is not None and span[-1] > last.isoformat():
            return f"its truth would be the interactions of {what}, and the calendar ends on {last}"
        return f"its truth is the interactions of {what}, and positive_sample is not stored for {missing[0]} yet"
    if not missing and not any(manifest.rows for manifest in found if manifest is not None):
        return f"there is no positive event on {what}, so there is nothing to find"
    window = [workspace.find("positive_sample", day) for day in window_days(ds, config.window.days)]
    if all(window) and not any(manifest.rows for manifest in window if manifest is not None):
        return f"there is no positive event in its window of {len(window)} days, so there is nothing to learn from"
    return None
