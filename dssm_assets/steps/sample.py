"""Samples of a day: keys and labels, joined with the features of the day before, and the positives among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features import fg_tables
from dssm_assets.core.features.expressions import SEQUENCE, Side
from dssm_assets.core.features.generator import FeatureGenerator, encode_distinct
from dssm_assets.core.features.parity import ParityReport, choose_golden_rows, merge_reports, replay_rows
from dssm_assets.core.samples import sample_tables
from dssm_assets.core.samples.sample import label_events, select_positives
from dssm_assets.core.samples.sample_fg import FeatureRows, LeakReport, add_feature_rows, check_no_leak, combine_leak_reports
from dssm_assets.core.samples.training_window import TRAINING_WINDOW, describe_window
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.training import ID_COLUMNS, find_previous_day_features
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, digests, window_days
from dssm_assets.storage.engines.engine import Target
from dssm_assets.storage.layout import is_shared as is_shared_path
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import StoreAddress
from dssm_assets.storage.tables import TableStore


class PreviousDayRows:
    """The feature rows of one table of each side at a time: days that share a table by content read it once.

    Pickled, it becomes that of the process that it comes to: a worker that maps many pieces reads a table once, from the
    store, and no rows travel.
    """

    def __init__(self, tables: TableStore) -> None:
        self._tables = tables
        self._held: dict[str, tuple[str, FeatureRows]] = {}

    def of(self, side: str, eve: Manifest | None) -> FeatureRows:
        """Returns where the features of a side stand in a partition; None: nowhere."""
        key, where = ID_COLUMNS[side], f"table {side}_features_fg"
        if eve is None:
            nothing = pa.schema([(key, pa.int64()), (col.FEATURE_DATE, pa.string())]).empty_table()
            return FeatureRows(nothing, key, where)
        digest, held = self._held.get(side, ("", None))
        if held is None or digest != eve.digest:
            self._held.pop(side, None)  # two tables at once may be too much for a worker
            table = self._tables.read(eve, [key, col.FEATURE_DATE], as_dictionaries=[col.FEATURE_DATE])
            held = FeatureRows(table, key, where)
            self._held[side] = (eve.digest, held)
        return held

    def __reduce__(self) -> tuple[Callable[[StoreAddress], PreviousDayRows], tuple[StoreAddress]]:
        """Returns what makes it anew in another process."""
        return _of_this_process, (StoreAddress.from_store(self._tables.partitions),)


_OF_THIS_PROCESS: Final[dict[str, PreviousDayRows]] = {}
"""By address; a process that is started for the tasks of a job knows one."""


def _of_this_process(address: StoreAddress) -> PreviousDayRows:
    if (name := repr(address)) not in _OF_THIS_PROCESS:
        _OF_THIS_PROCESS[name] = PreviousDayRows(TableStore(address.open()))
    return _OF_THIS_PROCESS[name]


GOLDEN_ROWS = 5
"""Rows of a partition that are replayed one by one; a request costs milliseconds, and there is a partition per day."""


def item_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every item's features as of each day."""
    return _encoded(workspace, days, side="item", source="item_all_feature", spec=fg_tables.ITEM_FEATURES_FG)


def user_features_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes every user's features as of each day."""
    return _encoded(workspace, days, side="user", source="user_all_feature", spec=fg_tables.USER_FEATURES_FG)


def _encoded(workspace: Workspace, days: Sequence[str], *, side: str, source: str, spec: TableSpec) -> Iterator[StepResult]:
    """Encodes the source of each day; a day whose source is the shared one of the day before shares its features."""
    last: tuple[str, StepResult] | None = None
    for ds in days:
        built_from = workspace.need(source, ds)
        if last is not None and is_shared(built_from) and last[0] == built_from.digest:
            manifest = workspace.tables.partitions.publish_shared(last[1].manifest, ds, digests([built_from]))
            yield replace(last[1], manifest=manifest)
            continue
        last = built_from.digest, _encode(workspace, ds, built_from, side=side, spec=spec)
        yield last[1]


def user_history_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Encodes the day's part of every user's history."""
    for ds in days:
        yield _encode(workspace, ds, workspace.need("user_history", ds), side=SEQUENCE, spec=fg_tables.USER_HISTORY_FG)


def parity_check(parity: ParityReport) -> Check:
    """Returns what a replay found as the check of a partition."""
    facts = {"golden_rows": parity.row_count, "differing_features": sorted(parity.differing)}
    return Check("fg_parity", parity.is_passed, parity.sentence, facts)


@dataclass(frozen=True)
class _Encoding:
    """The kernel of feature generation: keys and features of some rows, and what the golden ones among them gave."""

    generator: FeatureGenerator
    side: str
    kept: tuple[str, ...]
    golden: Sequence[int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, ParityReport]:
        is_whole = self.side == SEQUENCE
        features = self.generator.encode(table, side=self.side, is_whole=is_whole)
        report = replay_rows(self.generator, table, features, self.side, list(self.golden), start=start, is_whole=is_whole)
        return _beside(table.select(self.kept), features), report


def _encode(workspace: Workspace, ds: str, built_from: Manifest, *, side: str, spec: TableSpec) -> StepResult:
    kept = tuple(column.name for column in spec.columns)
    encoding = _Encoding(workspace.generator, side, kept, choose_golden_rows(built_from.rows, GOLDEN_ROWS))
    texts = [column.name for column in built_from.columns if column.type == "string" and column.name not in kept]
    target = Target(spec, ds, digests([built_from]), is_shared=is_shared(built_from))
    manifest, reports = workspace.engine.write_mapped(target, built_from, encoding, as_dictionaries=texts)
    return StepResult(manifest, {"features": len(manifest.columns) - len(kept)}, (parity_check(merge_reports(reports)),))


def is_shared(manifest: Manifest) -> bool:
    """Tells whether the files of a partition may be those of other days too."""
    return all(is_shared_path(file.path) for file in manifest.files)


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for field, column in zip(right.schema, right.columns, strict=True):
        left = left.append_column(field, column)
    return left


def sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Labels the events of each day."""
    config = workspace.config
    for ds in days:
        manifest = workspace.write_query(
            sample_tables.SAMPLE,
            ds,
            label_events,
            {"behavior": workspace.need("behavior", ds)},
            positive_events=config.events.positive,
            exposure_events=config.events.exposure,
            context_columns=config.tables.behavior.context_columns,
        )
        yield StepResult(manifest)


def sample_fg(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Finds each day's samples among the features of the day before and proves that nothing newer came in."""
    rows = PreviousDayRows(workspace.tables)
    for ds in days:
        yield _sample_fg(workspace, ds, rows)


@dataclass(frozen=True)
class _Found:
    """What the placing of some samples found."""

    leak: LeakReport
    parity: ParityReport


@dataclass(frozen=True)
class _Placing:
    """The kernel of sample_fg: some samples with where their features stand and with their context features."""

    generator: FeatureGenerator
    ds: str
    eves: Mapping[str, Manifest | None]
    rows: PreviousDayRows
    golden: Sequence[int]

    def __call__(self, table: pa.Table, start: int) -> tuple[pa.Table, _Found]:
        # Without samples, when only types are asked for, no table is read.
        users, items = (self.rows.of(side, self.eves[side] if table.num_rows else None) for side in ("user", "item"))
        context = encode_distinct(self.generator, table, "context")
        placed = add_feature_rows(table, users, items, context)
        parity = replay_rows(self.generator, table, context, "context", list(self.golden), start=start)
        return placed, _Found(check_no_leak(placed, self.ds), parity)


def _sample_fg(workspace: Workspace, ds: str, rows: PreviousDayRows) -> StepResult:
    labelled = workspace.need("sample", ds)
    eves = {side: find_previous_day_features(workspace, side, ds) for side in ID_COLUMNS}
    golden = choose_golden_rows(labelled.rows if workspace.fg_spec.features_of_side(Side.CONTEXT) else 0, GOLDEN_ROWS)
    placing = _Placing(workspace.generator, ds, eves, rows, golden)
    built_from = [manifest for manifest in (labelled, *eves.values()) if manifest is not None]
    # What leaks never takes the place of what stood before; the check below says so and stops what is behind.
    manifest, found = workspace.engine.write_mapped(
        Target(sample_tables.SAMPLE_FG, ds, digests(built_from)),
        labelled,
        placing,
        as_dictionaries=_repeated_texts(labelled),
        is_whole=True,
        accepts=_is_sound,
    )
    report = combine_leak_reports(part.leak for part in found)
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
        else f"{report.leaking_row_count} of {report.row_count} rows carry features newer than {day_before(ds)}; "
        "materialize the feature tables of the day before again"
    )
    checks = (Check("no_leak", report.is_passed, sentence, facts), parity_check(merge_reports([part.parity for part in found])))
    return StepResult(manifest, facts, checks)


def _is_sound(found: Sequence[_Found]) -> bool:
    return combine_leak_reports(part.leak for part in found).is_passed


def positive_sample(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Keeps the positives of each day; a day of nothing else is the very table that sample_fg is."""
    for ds in days:
        source = workspace.need("sample_fg", ds)
        target = Target(sample_tables.POSITIVE_SAMPLE, ds, digests([source]))
        if workspace.tables.min_max(source, col.LABEL) == (1, 1):
            yield StepResult(workspace.tables.copy_partition(target.spec, source, inputs=target.inputs))
        else:
            yield StepResult(workspace.engine.write_mapped(target, source, _positives)[0])


def _positives(table: pa.Table, start: int) -> tuple[pa.Table, None]:
    return select_positives(table), None


def _repeated_texts(manifest: Manifest) -> list[str]:
    """Returns the text columns whose values come again and again: all but the request, of which each has its own."""
    return [column.name for column in manifest.columns if column.type == "string" and column.name != col.REQUEST_ID]


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
