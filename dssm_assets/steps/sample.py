"""Steps of the groups fg and sample: encoded features of a day, labelled samples, and the training window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import remedy_of_missing
from dssm_assets.core.features import fg_tables
from dssm_assets.core.features.expressions import SEQUENCE, Side
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.parity import ParityReport, choose_rows, merge_reports, replay_rows
from dssm_assets.core.samples import sample_tables
from dssm_assets.core.samples.sample import label_events
from dssm_assets.core.samples.sample_fg import LeakReport, add_feature_rows, check_no_leak, combine_leak_reports
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.previous_day import ID_COLUMNS, find_previous_day_features, no_feature_rows, read_feature_rows
from dssm_assets.steps.read_once import ReadOnce
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests, each_day, window_days
from dssm_assets.storage.engines.engine import Target
from dssm_assets.storage.layout import is_shared
from dssm_assets.storage.manifest import Manifest

GOLDEN_ROWS = 5
"""At most so many rows of a partition are computed again as single requests. Each takes milliseconds."""
GOLDEN_SPACING = 10_000
WINDOW_TABLES = ("positive_sample", "numeric_value_counts", "category_value_counts", "user_history_fg")
"""Tables of which training reads every day of the window."""
FEATURE_TABLES = ("item_features_fg", "user_features_fg")
"""Feature tables. Samples point into those of the previous day, so their window starts one day earlier."""


def item_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _encode_days(workspace, days, side="item", source="item_all_feature", spec=fg_tables.ITEM_FEATURES_FG)


def user_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _encode_days(workspace, days, side="user", source="user_all_feature", spec=fg_tables.USER_FEATURES_FG)


def user_history_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    return _encode_days(workspace, days, side=SEQUENCE, source="user_history", spec=fg_tables.USER_HISTORY_FG)


@each_day
def sample(workspace: Workspace, ds: str) -> StepResult:
    config = workspace.config
    manifest = workspace.write_query(
        sample_tables.SAMPLE,
        ds,
        label_events,
        {"behavior": workspace.need("behavior", ds)},
        positive_events=tuple(config.events.positive),
        exposure_events=tuple(config.events.exposure),
        context_columns=tuple(config.tables.behavior.context_columns),
    )
    return StepResult(manifest)


def sample_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Looks up the features of each day's samples in the previous day's tables. A check reports newer features."""
    rows = ReadOnce(workspace.tables)
    for ds in days:
        yield _find_features(workspace, workspace.need("sample", ds), rows)


@each_day
def positive_sample(workspace: Workspace, ds: str) -> StepResult:
    source = workspace.need("sample_fg", ds)
    target = Target(sample_tables.POSITIVE_SAMPLE, ds, digests([source]))
    return StepResult(workspace.engine.write_mapped(target, source, _select_positives)[0])


def _encode_days(workspace: Workspace, days: Sequence[str], *, side: str, source: str, spec: TableSpec) -> Iterator[StepResult]:
    """Encodes the source of each day. Days that share one source share its features."""
    last: tuple[str, StepResult] | None = None
    fg = workspace.fg_spec
    spec = fg_tables.describe_features(spec, [*fg.features, *fg.sequence_features])
    for ds in days:
        raw = workspace.need(source, ds)
        if last is not None and _has_shared_files(raw) and last[0] == raw.digest:
            manifest = workspace.tables.partitions.publish_shared(last[1].manifest, ds, digests([raw]))
            yield replace(last[1], manifest=manifest)
        else:
            last = raw.digest, _encode(workspace, raw, side=side, spec=spec)
            yield last[1]


def _choose_golden(rows: int) -> list[int]:
    """Chooses rows to compute a second time as single requests: one of 10,000, at least one and at most GOLDEN_ROWS."""
    return [int(row) for row in choose_rows(rows, min(-(-rows // GOLDEN_SPACING), GOLDEN_ROWS))]


def _encode(workspace: Workspace, raw: Manifest, *, side: str, spec: TableSpec) -> StepResult:
    keys = [column.name for column in spec.columns]
    encode = partial(_encode_rows, workspace.generator, side, keys, _choose_golden(raw.rows))
    target = Target(spec, raw.ds, digests([raw]), is_shared=_has_shared_files(raw))
    texts = [column.name for column in raw.columns if column.type == "string" and column.name not in keys]
    manifest, reports = workspace.engine.write_mapped(target, raw, encode, as_dictionaries=texts)
    facts = {"features": len(manifest.columns) - len(keys)}
    return StepResult(manifest, facts, (_check_parity(merge_reports(reports)),))


def _encode_rows(
    generator: FeatureGenerator, side: str, keys: Sequence[str], golden: Sequence[int], table: pa.Table, start: int
) -> tuple[pa.Table, ParityReport]:
    is_whole = side == SEQUENCE
    features = generator.encode(table, side, is_whole=is_whole)
    report = replay_rows(generator, table, features, side, golden, start=start, is_whole=is_whole)
    encoded = table.select(keys)
    for field, column in zip(features.schema, features.columns, strict=True):
        encoded = encoded.append_column(field, column)
    return encoded, report


def _has_shared_files(manifest: Manifest) -> bool:
    return all(is_shared(file.path) for file in manifest.files)


def _check_parity(parity: ParityReport) -> Check:
    facts = {"golden_rows": parity.row_count, "differing_features": sorted(parity.differing)}
    return Check("fg_parity", parity.is_passed, parity.sentence, facts)


def _find_features(workspace: Workspace, samples: Manifest, rows: ReadOnce) -> StepResult:
    ds = samples.ds
    features = {side: find_previous_day_features(workspace, side, ds) for side in ID_COLUMNS}
    has_context = bool(workspace.fg_spec.features_of_side(Side.CONTEXT))
    golden = _choose_golden(samples.rows) if has_context else []
    target = Target(sample_tables.SAMPLE_FG, ds, digests([samples, *(table for table in features.values() if table)]))
    add_features = partial(_add_features, workspace.generator, ds, features, rows, golden)
    # Each request has its own id, so a dictionary would save nothing.
    texts = [column.name for column in samples.columns if column.type == "string" and column.name != col.REQUEST_ID]
    # Samples that leak do not replace an existing partition. The check below reports them and stops downstream assets.
    manifest, parts = workspace.engine.write_mapped(target, samples, add_features, as_dictionaries=texts, accepts=_has_no_leak)
    report = combine_leak_reports(leak for leak, _ in parts)
    facts = {
        "newest_user_feature_date": report.newest_user_feature_date or "none",
        "newest_item_feature_date": report.newest_item_feature_date or "none",
        "leaking_rows": report.leaking_row_count,
        "rows_of_unknown_users": report.unknown_user_count,
        "rows_of_unknown_items": report.unknown_item_count,
    }
    sentence = (
        f"no feature row is newer than {day_before(ds)}"
        if report.is_passed
        else f"{report.leaking_row_count} of {report.row_count} rows have features newer than {day_before(ds)}; "
        "materialize the feature tables of the previous day again"
    )
    leak_check = Check("no_leak", report.is_passed, sentence, facts)
    parity_check = _check_parity(merge_reports([parity for _, parity in parts]))
    return StepResult(manifest, facts, (leak_check, parity_check))


def _add_features(
    generator: FeatureGenerator,
    ds: str,
    features: Mapping[str, Manifest | None],
    rows: ReadOnce,
    golden: Sequence[int],
    table: pa.Table,
    start: int,
) -> tuple[pa.Table, tuple[LeakReport, ParityReport]]:
    context = generator.encode(table, "context")
    parity = replay_rows(generator, table, context, "context", golden, start=start)
    # An engine calls this without samples to learn the types; then no feature table is read.
    users, items = (
        no_feature_rows(side) if manifest is None or not table.num_rows else rows.get(manifest, read_feature_rows, side)
        for side, manifest in features.items()
    )
    found = add_feature_rows(table, users, items, context)
    return found, (check_no_leak(found, ds), parity)


def _has_no_leak(parts: Sequence[tuple[LeakReport, ParityReport]]) -> bool:
    return combine_leak_reports(leak for leak, _ in parts).is_passed


def _select_positives(table: pa.Table, start: int) -> tuple[pa.Table, None]:
    return table.filter(pc.equal(table.column(col.LABEL), 1)), None


@each_day
def training_window(workspace: Workspace, ds: str) -> StepResult:
    """Lists the days of a window, after a check that all are stored."""
    start, length = workspace.config.calendar.start.isoformat(), workspace.config.window.days
    days = window_days(ds, length)
    feature_days = [day for day in [day_before(days[0]), *days] if day >= start] or [day_before(ds)]
    days_of = dict.fromkeys(WINDOW_TABLES, days) | dict.fromkeys(FEATURE_TABLES, feature_days)
    found = {(table, day): workspace.find(table, day) for table in sorted(days_of) for day in days_of[table]}
    missing: dict[str, list[str]] = {}
    for (table, day), manifest in found.items():
        if manifest is None:
            missing.setdefault(table, []).append(day)
    window = workspace.find(sample_tables.TRAINING_WINDOW.name, ds)
    # An incomplete window does not replace an existing one.
    if window is None or not missing:
        rows = [
            {"table": table, "day": day, "rows": manifest and manifest.rows, "digest": manifest and manifest.digest}
            for (table, day), manifest in found.items()
        ]
        spec = sample_tables.TRAINING_WINDOW
        table_of_days = pa.Table.from_pylist(rows, spec.schema)
        inputs = digests(manifest for manifest in found.values() if manifest is not None)
        window = workspace.tables.write(spec, ds, table_of_days, inputs=inputs)
    sentence = _describe_missing(missing, ds) if missing else f"all {length} days from {days[0]} to {days[-1]} are materialized"
    check = Check("window_complete", not missing, sentence, {"window_days": length, "missing_days": missing})
    return StepResult(window, {"window_days": length}, (check,))


def _describe_missing(missing: Mapping[str, Sequence[str]], ds: str) -> str:
    shown = "; ".join(
        f"{table}: {', '.join(days[:5])}" + (f" and {len(days) - 5} more" if len(days) > 5 else "")
        for table, days in missing.items()
    )
    return f"missing: {shown}. To fix: {remedy_of_missing('train_and_evaluate', ds)}"
