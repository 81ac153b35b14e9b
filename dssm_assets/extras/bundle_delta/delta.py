"""Makes a delta of the served bundle: the same towers, with items and users that are new or have changed since its day.

A delta is computed from the whole bundle and the present sources, never from an earlier delta. So late rows count, and errors do
not add up. A delta is a complete bundle that shares unchanged files with the whole bundle (`service/bundle/bundle_store.py`).

    items       new ones, and ones with changed attributes, get new vectors, with the statistics of the bundle's day. An item that
                has lost its row stays.
    users       new ones, ones with new events and ones with a changed profile get vectors from the whole history, and own items
    unchanged   statistics and vectors of other users and items, popularity and priors, neighbours, weights of the merge
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import faiss
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, is_list
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import (
    CheckFailedError,
    Fault,
    PartitionMissingError,
    ProvenanceError,
    SchemaError,
    remedy_of_missing,
)
from dssm_assets.core.features_raw.all_features import join_item_features, join_user_features
from dssm_assets.core.features_raw.plan import FeaturePlan
from dssm_assets.core.features_raw.preferences import order_preferences
from dssm_assets.core.file_names import CHANNELS_VERSION, BundleFile, ModelFile
from dssm_assets.core.models.prior import append_prior
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.index import ship_index
from dssm_assets.core.retrieval.vectors import Vectors, to_lists, to_matrix
from dssm_assets.core.samples.history import build_history
from dssm_assets.core.sources.convert import decode_column
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.extras.bundle_delta.fresh_days import FreshDays, open_fresh_days
from dssm_assets.service.bundle import served_vectors
from dssm_assets.service.bundle.bundle_store import FORMAT, BundleStore, FetchedBundle, Published, base_of, open_bundles
from dssm_assets.steps.feature_config import indexed_features
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.stored_interactions import read_rows_of_users
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.vectors import open_item_inference, read_recent_priors
from dssm_assets.steps.workspace import Workspace, day_before, start_of_day_ms, window_days
from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.local_files import map_arrow, write_arrow
from dssm_assets.storage.manifest import Manifest

BATCH_USERS: Final = 1 << 14
"""So many users have their histories in memory at once."""
_KEYS: Final = {"user": col.USER_ID, "item": col.ITEM_ID}


@dataclass(frozen=True)
class DeltaCounts:
    """Counts for a delta.

    Attributes:
        new_items, new_users: items and users that the whole bundle lacks.
        changed_items: items of the bundle with a change in an attribute that a feature reads.
        gone_items: items of the bundle that item_table no longer has; they stay in the bundle.
        refreshed_users: users of the bundle with new events or a changed profile.
        events: positive events after the bundle's day.
    """

    new_items: int
    changed_items: int
    gone_items: int
    new_users: int
    refreshed_users: int
    events: int


@dataclass(frozen=True)
class DeltaResult:
    """The result: the whole bundle, the counts, and the published delta (None if nothing has changed)."""

    base: str
    counts: DeltaCounts
    published: Published | None


def publish_delta(workspace: Workspace, today: str) -> DeltaResult:
    """Refreshes the served bundle with all changes since its day, including today's, and serves the result.

    Raises:
        PartitionMissingError: no bundle is served; or the whole bundle, its model or a table of its day is not stored.
        ProvenanceError: the bundle was written by an earlier version, or its model or tables were written again since.
        SchemaError: a column for features or filters is missing, or has another type than on the bundle's day.
        PartitionReplacedError: meanwhile another bundle was published, or the whole bundle was removed. Nothing changes.
        StorageError: the whole bundle differs from its manifest.
        CheckFailedError: no index reaches serving.min_index_recall.
        InputError: see `open_fresh_days`.
    """
    store = open_bundles(workspace.loaded)
    base_id, served = find_base(store)
    with store.staging() as target, store.reading(base_id):
        base = _Base(workspace, store.fetch(base_id))
        with open_fresh_days(workspace, base.loaded, base.as_of, today) as fresh:
            counts, body = _Delta(workspace, base, fresh, target).write()
        if not any(target.iterdir()) and served == base_id:
            workspace.log(f"{base_id}: nothing has changed since {base.as_of}")
            return DeltaResult(base_id, counts, None)
        published = store.publish(target, body, workspace.config.serving.keep_bundles, base=base_id, served=served)
    workspace.log(f"{published.bundle_id} is served now, a delta of {base_id}")
    return DeltaResult(base_id, counts, published)


def find_base(store: BundleStore) -> tuple[str, str]:
    """Returns the whole bundle to refresh, and the served bundle. They are the same unless a delta is served.

    Raises:
        PartitionMissingError: no bundle is served.
    """
    pointer = store.pointer()
    if pointer is None:
        remedy = remedy_of_missing("publish", "DAY")
        raise PartitionMissingError(Fault(f"serving root {store.root}", "a bundle to refresh", "none", remedy))
    return base_of(store.manifest(pointer.bundle_id)) or pointer.bundle_id, pointer.bundle_id


class _Base:
    """The whole bundle to refresh: its files on the local disk, and its model."""

    def __init__(self, workspace: Workspace, fetched: FetchedBundle) -> None:
        bundle_id, manifest, folder, self._copy = fetched
        self.manifest, self.folder = manifest, folder
        self.ds, self.as_of = str(manifest["ds"]), str(manifest["features_as_of"])
        self._again = remedy_of_missing("serving_bundle", self.ds)
        needed = [f"dssm_model/{self.ds}", f"item_table/{self.as_of}", f"user_table/{self.as_of}"]
        lacking = [key for key in needed if key not in manifest["inputs"]]
        channels = folder / BundleFile.CHANNELS
        version = json.loads(channels.read_bytes())["version"] if channels.exists() else CHANNELS_VERSION
        if manifest["format"] != FORMAT or lacking or version != CHANNELS_VERSION:
            got = f"format {manifest['format']}, without the digests of {', '.join(lacking) or 'none'}, channels of version {version}"
            raise ProvenanceError(Fault(f"bundle {bundle_id}", "a bundle of this version", got, self._again))
        self.model, items, users = (self.need(workspace, *key.split("/")) for key in needed)
        self.tables_before = {"item": items, "user": users}
        self.spec = TowerSpec.model_validate(json.loads((folder / BundleFile.TOWERS).read_bytes())["spec"])
        self.towers: TwoTower = map_model(workspace.artifacts.local_path(self.model, ModelFile.WEIGHTS), self.spec)
        tables = (pq.read_table(folder / name) for name in (BundleFile.FEATURE_CONFIG, BundleFile.FEATURE_COUNTS))
        self.bucketizer = Bucketizer(*tables)
        hashes = {"hash_function": HashFunction(manifest["hash_function"])}
        config = workspace.config.model_copy(update={"features": workspace.config.features.model_copy(update=hashes)})
        fg = json.loads((folder / BundleFile.FG).read_bytes())
        self.loaded = replace(workspace.loaded, config=config, fg=fg, fg_folder=folder)
        self.ids: Mapping[str, pa.Array] = {
            "item": combine_chunks(self.table(BundleFile.ITEM_IDS).column(col.ITEM_ID)),
            "user": combine_chunks(self.table(BundleFile.USER_VECTORS).column(col.USER_ID)),
        }

    def need(self, workspace: Workspace, asset: str, ds: str) -> Manifest:
        """Returns a partition that the bundle was built from. Raises a ProvenanceError if it was written again."""
        found = workspace.need(asset, ds)
        if not found.has_had(expected := self.manifest["inputs"][found.key]):
            where, first = f"bundle of {self.ds}, input {found.key}", f"the digest that it was built from, {expected[:12]}"
            raise ProvenanceError(Fault(where, first, found.digest[:12], self._again))
        return found

    def table(self, name: str) -> pa.Table:
        return map_arrow(self.folder / name)

    def has_file(self, name: str) -> bool:
        return name in self.manifest["files"]


@dataclass(frozen=True)
class _Entities:
    """Users or items to compute new vectors for: ids, encoded features, and rows in the bundle.

    New users or items get rows after the bundle's rows, ascending by id.
    """

    encoded: pa.Table
    ids: pa.Array
    rows: IntArray
    is_new: Any


class _Delta:
    def __init__(self, workspace: Workspace, base: _Base, fresh: FreshDays, folder: Path) -> None:
        self._workspace, self._base, self._fresh, self._folder = workspace, base, fresh, folder
        self._plan = FeaturePlan.from_config(workspace.config, self._base.as_of)
        assert isinstance(fresh.workspace.engine, DuckDBEngine)
        self._engine = fresh.workspace.engine
        self._end_ms = start_of_day_ms(day_before(base.as_of, -1), workspace.config.calendar.timezone)

    def write(self) -> tuple[DeltaCounts, dict[str, Any]]:
        """Writes the files that change. Returns the counts and the manifest's body. If nothing has changed, no file is written."""
        base, fresh = self._base, self._fresh
        newest = self._read_ids("item", fresh.tables["item"])
        items = self._find_entities("item", _without(newest, base.ids["item"]))
        new_users = _without(self._read_ids("user", fresh.tables["user"]), base.ids["user"])
        users = self._find_entities("user", pa.concat_arrays([self._read_ids("user", fresh.history), new_users]))
        corpus = IdIndex(pa.concat_arrays([base.ids["item"], items.ids.filter(pa.array(items.is_new))]))
        days = [fresh.workspace.tables.read(manifest, [col.EVENT_TIMES_MS]) for manifest in fresh.history]
        times = pc.list_flatten(pa.concat_tables(days).column(0))  # times of positive events
        counts = DeltaCounts(
            new_items=int(items.is_new.sum()),
            changed_items=int((~items.is_new).sum()),
            gone_items=self._count_gone(newest),
            new_users=int(users.is_new.sum()),
            refreshed_users=int((~users.is_new).sum()),
            events=len(times),
        )
        now_ms = max(self._end_ms, (pc.max(times).as_py() or 0) + 1)
        index = dict(base.manifest["index"])
        if len(items.ids):
            index |= self._write_items(items, corpus)
        self._write_filter_columns(corpus, has_new=counts.new_items > 0)
        if len(users.ids):
            self._write_users(users, corpus, now_ms)
        if base.has_file(BundleFile.CHANNELS):
            self._write_channels(counts.new_items, now_ms)
        return counts, {
            **{key: value for key, value in base.manifest.items() if key not in ("format", "files", "was")},
            "users": base.manifest["users"] + counts.new_users,
            "items": len(corpus),
            "items_not_trained_on": base.manifest["items_not_trained_on"] + counts.new_items,
            "index": index,
            "delta": {**asdict(counts), "now_ms": now_ms},
        }

    def _count_gone(self, newest: pa.Array) -> int:
        """Counts the items of the bundle that had a row in item_table on its day and have no row now."""
        if self._workspace.config.tables.item is None:
            return 0
        gone = _without(self._read_ids("item", [self._base.tables_before["item"]]), newest)
        return len(gone) - len(_without(gone, self._base.ids["item"]))

    def _find_changed(self, side: str, names: Iterable[str], reader: str) -> pa.Array:
        """Compares the newest rows with the rows of the bundle's day, in columns that `reader` needs. Returns the ids of changed rows."""
        before, newest, key = self._base.tables_before[side], self._fresh.tables[side], _KEYS[side]
        old, new = ({one.name: one.type for one in manifest.columns} for manifest in (before, newest[-1]))
        compared = sorted({name for name in names if name in old} - {key})
        SchemaError.raise_if(
            Fault(
                f"{side}_table, column {name}, read by {reader}",
                f"{old[name]}, as on {before.ds}",
                new.get(name, "no such column"),
                "correct the source, or publish a whole bundle",
            )
            for name in compared
            if old[name] != new.get(name) and "null" not in (old[name], new.get(name))
        )
        kind = self._base.ids[side].type
        if not compared:
            return pa.array([], kind)
        found = self._engine.table(_subtract, {"newest": newest, "before": before}, key=key, names=tuple(compared))
        return served_vectors.table_ids(found, side, kind)

    def _read_ids(self, side: str, manifests: Sequence[Manifest]) -> pa.Array:
        kind, tables = self._base.ids[side].type, self._fresh.workspace.tables
        parts = [served_vectors.table_ids(tables.read(one, [_KEYS[side]]), side, kind) for one in manifests]
        return pc.unique(pa.concat_arrays([pa.array([], kind), *parts]))

    def _find_entities(self, side: str, others: pa.Array) -> _Entities:
        """Returns the encoded features of changed users or items, and of the ids in `others`."""
        known = self._base.ids[side]
        times = {f"days_since_{name}": name for name in self._plan.times(_KEYS[side])}
        inputs = {name for feature in self._fresh.workspace.fg_spec.features_of_side(side) for name in feature.inputs}
        changed = self._find_changed(side, (times.get(name, name) for name in inputs), f"features of {side}s")
        encoded = self._encode(side, pc.unique(pa.concat_arrays([changed, others])))
        found = served_vectors.table_ids(encoded, side, known.type)
        order = pc.sort_indices(found)
        encoded, found = encoded.take(order), found.take(order)
        rows = IdIndex(known).lookup(found).astype(np.int64)
        is_new = rows < 0
        rows[is_new] = len(known) + np.arange(is_new.sum())
        return _Entities(encoded, found, rows, is_new)

    def _encode(self, side: str, ids: pa.Array) -> pa.Table:
        """Returns id and encoded features, a row per id, from the newest attributes and the statistics of the bundle's day."""
        key, newest, as_of = _KEYS[side], self._fresh.tables[side], self._base.as_of
        stored = self._fresh.workspace.tables.open(newest[-1]).schema.field(key).type
        names = ["item_activity"] if side == "item" else ["user_activity", "user_preferences"]
        inputs: dict[str, Any] = {name: self._workspace.need(name, as_of) for name in (*names, "pair_activity")}
        inputs |= {"ids": pa.table({key: ids.cast(stored)}), "profiles": newest}
        raw = self._engine.table(_join, inputs, key=key, ds=as_of, plan=self._plan)
        if side == "user":
            raw = order_preferences(raw, attributes=self._plan.preference_columns)
        encoded = self._fresh.workspace.generator.encode(raw, side=side)
        return pa.table({key: raw.column(key), **dict(zip(encoded.column_names, encoded.columns, strict=True))})

    def _write_items(self, items: _Entities, corpus: IdIndex) -> dict[str, Any]:
        """Writes ids, vectors and index. Returns the manifest's entry for the index."""
        base = self._base
        indices = indexed_features(base.bucketizer, "item").to_table(items.encoded, "item_table, encoded")
        found = open_item_inference(self._workspace, base.model, base.towers).vectors(indices)
        before = to_matrix(base.table(BundleFile.ITEM_VECTORS).column(col.ITEM_TOWER_EMB), "item_vectors")
        if base.spec.prior:
            found = append_prior(found, self._priors(items, before, corpus))
        served_vectors.check_vectors("item", items.ids, to_lists(found))
        vectors = np.empty((len(corpus), before.shape[1]), np.float32)
        vectors[: len(before)] = before
        vectors[items.rows] = found
        if np.array_equal(vectors, before):
            return {}
        served_vectors.write_item_vectors(self._folder, corpus.ids, vectors)
        config, required = self._workspace.config, self._workspace.config.serving.min_index_recall
        sample = served_vectors.sample_users(base.folder, base.spec)
        shipped = ship_index(vectors, sample, config.evaluation.k, config.serving, config.seed)
        if shipped.lowest_recall < required:
            expected, got = f"recall of at least {required:g} (serving.min_index_recall)", f"{shipped.lowest_recall:.4f}"
            raise CheckFailedError(str(Fault("index of the delta", expected, got, "lower it, or set serving.index")))
        faiss.write_index(shipped.index, str(self._folder / BundleFile.ITEM_INDEX))
        return served_vectors.describe_index(shipped, len(sample) // base.spec.num_interests)

    def _priors(self, items: _Entities, before: Vectors, corpus: IdIndex) -> Any:
        """Returns each item's prior in the bundle. A new item gets the prior of an item without events, on the same scale."""
        days = window_days(day_before(self._base.as_of, -1), self._workspace.config.window.days)
        recent = self._workspace.need_all("positive_sample", days)
        priors = read_recent_priors(self._workspace, self._base.model, recent, corpus)
        priors += before[0, -1] - priors[0]  # priors are centred by the mean over items: keep the bundle's mean
        priors[: len(before)] = before[:, -1]
        return priors[items.rows]

    def _write_filter_columns(self, corpus: IdIndex, *, has_new: bool) -> None:
        """Writes the columns for filters if a value has changed or there are new items. Items without a row keep their values."""
        base = self._base
        if not base.has_file(BundleFile.ITEM_COLUMNS):
            return
        stored = base.table(BundleFile.ITEM_COLUMNS)
        names = stored.column_names
        if not has_new and not len(self._find_changed("item", names, "serving.filters")):
            return
        (newest,) = self._fresh.tables["item"]
        columns, source = served_vectors.read_filter_columns(self._fresh.workspace, newest, names, corpus)
        plain = pa.table({name: decode_column(stored.column(name)) for name in names})
        both = pa.concat_tables([plain, columns.cast(plain.schema)])
        kept = np.arange(len(corpus))
        chosen = np.where(source >= 0, len(plain) + source, kept)
        served_vectors.write_item_columns(self._folder, both.take(pa.array(chosen, mask=(source < 0) & (kept >= len(plain)))))

    def _write_users(self, users: _Entities, corpus: IdIndex, now_ms: int) -> None:
        """Writes the rows of users. Changed rows are made from the whole history up to now."""
        base = self._base
        starts = range(0, len(users.ids), BATCH_USERS)
        parts = [self._make_rows(users, slice(start, start + BATCH_USERS), corpus, now_ms) for start in starts]
        for name in parts[0]:
            changed = pa.Table.from_batches([part[name] for part in parts])
            if name == BundleFile.USER_VECTORS:
                served_vectors.check_vectors("user", *(combine_chunks(column) for column in changed.columns))
            if base.has_file(name):
                stored = base.table(name)
                rows = _replace_rows(stored, users, changed.cast(stored.schema))
                write_arrow(self._folder / name, stored.schema, rows)

    def _make_rows(self, users: _Entities, part: slice, corpus: IdIndex, now_ms: int) -> dict[BundleFile, pa.RecordBatch]:
        """Returns the rows of some users. Their histories must fit into memory."""
        base, fresh, ids = self._base, self._fresh.workspace, users.ids[part]
        sub_features = indexed_features(base.bucketizer, "sequence").names
        names = {col.USER_ID, col.ITEM_IDS, col.EVENT_TIMES_MS, *sub_features}
        days = find_history_days(fresh, self._fresh.end)
        rows = [read_rows_of_users(fresh, day, [one.name for one in day.columns if one.name in names], ids) for day in days]
        history = build_history(lambda _: rows, corpus, base.bucketizer.bucketize, features=sub_features)
        channel_items = len(corpus) if base.has_file(BundleFile.OWN_ITEMS) else None
        maker = served_vectors.UserRowMaker(
            base.towers, base.bucketizer, base.spec, history, as_of_ms=now_ms, channel_items=channel_items
        )
        return maker.make_rows(users.encoded[part])

    def _write_channels(self, new_items: int, now_ms: int) -> None:
        """Writes rows without neighbours and events for new items, and the moment of the delta."""
        base, folder = self._base, self._folder
        if new_items:
            stored = base.table(BundleFile.ITEM_CHANNELS)
            empty: dict[str, Any] = {field.name: [[] if is_list(field.type) else 0] * new_items for field in stored.schema}
            both = pa.concat_tables([stored, pa.table(empty, schema=stored.schema)])
            write_arrow(folder / BundleFile.ITEM_CHANNELS, stored.schema, both.to_batches())
        content = json.loads((base.folder / BundleFile.CHANNELS).read_bytes())
        if now_ms > content["now_ms"]:
            content["now_ms"] = now_ms
            (folder / BundleFile.CHANNELS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _replace_rows(stored: pa.Table, users: _Entities, changed: pa.Table) -> Iterator[pa.RecordBatch]:
    """Yields a row for each user: stored rows, replaced by changed rows, then the rows of new users."""
    place = np.full(stored.num_rows, -1, np.int64)
    place[users.rows[~users.is_new]] = np.flatnonzero(~users.is_new)
    start = 0
    for batch in stored.to_batches():
        replaced = place[start : start + batch.num_rows]
        start += batch.num_rows
        wanted = np.where(replaced < 0, np.arange(batch.num_rows), batch.num_rows + np.cumsum(replaced >= 0) - 1)
        added = changed.take(pa.array(replaced[replaced >= 0]))
        both = pa.concat_tables([pa.Table.from_batches([batch]), added])
        yield from both.combine_chunks().take(pa.array(wanted)).to_batches()
    yield from changed.take(pa.array(np.flatnonzero(users.is_new))).combine_chunks().to_batches()


def _without(ids: pa.Array, others: pa.Array) -> pa.Array:
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others)))


def _subtract(newest: ibis.Table, before: ibis.Table, *, key: str, names: Sequence[str]) -> ibis.Table:
    columns = [key, *names]
    return newest.select(*columns).difference(before.select(*columns)).select(key)


def _join(ids: ibis.Table, profiles: ibis.Table, *, key: str, ds: str, plan: FeaturePlan, **stored: ibis.Table) -> ibis.Table:
    profiles = ids.left_join(profiles.distinct(), key).select(key, *(name for name in profiles.columns if name != key))
    statistics: Any = {name: table.semi_join(ids, key) for name, table in stored.items()}
    if key == col.ITEM_ID:
        return join_item_features(profiles, ds=ds, plan=plan, **statistics)
    return join_user_features(profiles, ds=ds, plan=plan, **statistics)
