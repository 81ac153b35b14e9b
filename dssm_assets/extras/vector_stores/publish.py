"""The step of the asset `vector_store`. The store also follows the served bundle after deltas, rollbacks and cleanups.

The store keeps a version for the served whole bundle and one for the bundle before it. A version is written as a draft, compared
with the bundle, then served. On a local disk one process writes at a time. On object stores each process checks at the end
whether the same bundle is still served.

A version keeps the first id of its bundle. If users are forgotten, the bundle gets a new id but keeps its items, so a service
accepts both ids. The version that was served before stays until the next one, so that services have time to follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.config.pipeline import VectorStore as VectorStoreSettings
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import DssmError, Fault, PartitionMissingError, StorageError, remedy_of_missing
from dssm_assets.core.features.parity import choose_rows
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.index import kth_best
from dssm_assets.core.retrieval.vectors import to_matrix
from dssm_assets.extras.vector_stores.bundle_rows import BundleRows, describe_files
from dssm_assets.extras.vector_stores.store import (
    KEYS,
    MODEL_DIGEST,
    VECTORS,
    StoredVectors,
    VectorStore,
    default_uri,
    open_configured,
)
from dssm_assets.service.bundle.bundle_store import FetchedBundle, base_of, open_bundles
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests, each_day
from dssm_assets.storage import layout
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.local_files import folder_lock, map_arrow
from dssm_assets.storage.locations import put_if, unchanged_condition

ASSET: Final = "vector_store"
CHECK: Final = "stored_vectors"
MIN_RECALL: Final = 0.95
COMPARED_ROWS: Final = 100
"""So many vectors are compared, and the recall is measured on so many users."""
LIST_LENGTH: Final = 200
_ROUNDING: Final = 1e-5

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Served:
    revision: str
    version: str
    manifest: Mapping[str, Any]


@each_day
def vector_store(workspace: Workspace, ds: str) -> StepResult:
    """Publishes a day's bundle with its deltas, if the bundle is served."""
    source = workspace.need("serving_bundle", ds)
    follower = _Follower(workspace.loaded, workspace.log)
    check = Check(CHECK, True, f"the bundle of {ds} is not served, so nothing was published")
    facts: dict[str, Any] = {"is_served": False}
    if source.facts["bundle_id"] in follower.list_names((served := follower.find_served()).revision):
        check = follower.follow(is_whole=True)
        facts = {
            "is_served": check.is_passed,
            "bundle_id": served.revision,
            "store": follower.store.where,
            "similarity": served.manifest["similarity"],
            "compared_by": f"inner product{', the prior is the last entry' if served.manifest.get('has_prior') else ''}",
            **check.facts,
        }
    stored = {key: facts.get(key) for key in ("bundle_id", "is_served")}
    files = {"store.json": json.dumps(facts, indent=1).encode()}
    return StepResult(workspace.artifacts.publish(ASSET, ds, files, inputs=digests([source]), facts=stored), facts, (check,))


def on_served(loaded: LoadedConfig, log: Log) -> None:
    """Publishes the served bundle to the configured store. Writes only the changes if the store has a revision of the same bundle.

    Raises:
        StorageError: the store cannot be updated. The bundle stays served, and the store lacks its vectors.
    """
    if loaded.config.vector_store is None or (pointer := open_bundles(loaded).pointer()) is None:
        return
    try:
        check = _Follower(loaded, log).follow()
        problem = "" if check.is_passed else check.description
    except DssmError as error:
        problem = str(error).partition(". To fix")[0]
    if problem:
        expected = f"the vectors of bundle {pointer.bundle_id}, which is served all the same"
        remedy = f"see to the store, then materialize vector_store of {pointer.bundle_id[:10]}"
        raise StorageError(str(Fault("vector_store", expected, problem, remedy)))


def on_cleaned(workspace: Workspace, before: float, *, removes: bool) -> set[str]:
    """Removes versions that no bundle needs, and drafts begun before a unix time. Returns an empty set of files.

    Raises:
        StorageError: the store cannot be reached.
    """
    loaded = workspace.loaded
    if loaded.config.vector_store is None and not workspace.tables.partitions.days(ASSET):
        return set()
    follower = _Follower(loaded, workspace.log)
    for name in follower.find_removable(before):
        workspace.log(f"{follower.store.where}: {name} {'is' if removes else 'would be'} removed")
        if removes:
            follower.store.remove(name)
    return set()


def list_unreached(workspace: Workspace) -> list[str]:
    """Returns the stores that hold vectors of users but are not in the configuration any more, also an unused one in the home."""
    store, loaded = workspace.tables.partitions, workspace.loaded
    bundles = open_bundles(loaded)
    places = set(_read_places(bundles.fs, layout.inside(bundles.root, layout.STORES_WITH_USERS)))
    if store.fs.exists(layout.inside(store.root, layout.LANCEDB)):
        places.add(f"vector store {default_uri(loaded)}")
    if places and loaded.config.vector_store is not None:
        used = open_configured(loaded)
        places -= {used.where, _name_place(loaded, used)}
    return sorted(places)


def _name_place(loaded: LoadedConfig, store: VectorStore) -> str:
    return f"{store.where}, tables {loaded.config.name}_*"


class _Follower:
    """Keeps a configured store equal to the served bundle."""

    def __init__(self, loaded: LoadedConfig, log: Log) -> None:
        self._bundles, self._log, self._folder = open_bundles(loaded), log, layout.asset_folder(loaded.root, ASSET)
        settings = loaded.config.vector_store or VectorStoreSettings()
        self._tables = settings.tables
        # The default store lies beside the tables and is found there, so it is not noted.
        self._must_be_noted = settings.uri is not None and VectorTable.USER in settings.tables
        self.store = open_configured(loaded)
        self._place = _name_place(loaded, self.store)

    def find_served(self) -> _Served:
        """Returns the served bundle. PartitionMissingError: no bundle is served."""
        pointer = self._bundles.pointer()
        if pointer is None:
            remedy = remedy_of_missing("publish", "DAY")
            raise PartitionMissingError(Fault(f"serving root {self._bundles.root}", "a bundle that is served", "none", remedy))
        version = self.list_names(pointer.bundle_id)[0]
        return _Served(pointer.bundle_id, version, self._bundles.manifest(pointer.bundle_id))

    def list_names(self, bundle_id: str) -> list[str]:
        """Returns all ids of a bundle's whole bundle, oldest first: it gets a new id whenever users are forgotten."""
        try:
            base = base_of(self._bundles.manifest(bundle_id)) or bundle_id
            return [*self._bundles.manifest(base).get("was", ()), base]
        except PartitionMissingError:  # removed by hand
            return [bundle_id]

    def follow(self, *, is_whole: bool = False) -> Check:
        """Writes the missing rows of the served bundle (with `is_whole`: all rows) and serves it. Repeats if the bundle has changed."""
        with folder_lock(self._folder) if self._bundles.is_local else nullcontext():
            if self._must_be_noted:
                self._note_store()
            while True:
                served = self.find_served()
                check = None if is_whole else self._update(served)
                check = check or self._publish(served)
                if not check.is_passed or self.find_served().revision == served.revision:
                    break
                is_whole = False
            if check.is_passed:
                former = self.store.find_served()  # services may not have followed yet
                self.store.serve(served.version)
                for name in self.find_removable(before=0):
                    if name != former:
                        self.store.remove(name)
            return check

    def find_removable(self, before: float) -> list[str]:
        """Returns drafts begun before a unix time, and versions other than the two served last.

        With `before` above 0, versions with vectors of users are removable, too, if their bundle is not stored any more: it may have
        been written again without forgotten users.
        """
        pointer = self._bundles.pointer()
        trail, stored = ((), ()) if pointer is None else (pointer.trail, pointer.stored)
        last = list(dict.fromkeys(self.list_names(bundle_id)[0] for bundle_id in reversed(trail)))[:2]
        if before:
            revisions = self.store.find_versions()
            last = [name for name in last if revisions.get(name) in stored or not self._has_users(name)]
        return self.store.find_removable(last, before)

    def _has_users(self, version: str) -> bool:
        try:
            self.store.open(VectorTable.USER, version)
        except PartitionMissingError:
            return False
        return True

    def _note_store(self) -> None:
        """Records that the store gets vectors of users: `list_unreached` names it when the configuration no longer does."""
        fs, path, is_noted = self._bundles.fs, layout.inside(self._bundles.root, layout.STORES_WITH_USERS), False
        while not is_noted:
            condition, places = unchanged_condition(fs, path), _read_places(fs, path)
            is_noted = self._place in places or put_if(fs, path, json.dumps([*places, self._place]).encode(), condition)

    def _update(self, served: _Served) -> Check | None:
        """Writes the difference from the store's revision. Returns None if a whole version must be written instead."""
        before = self.store.find_versions().get(served.version)
        if before is None:
            return None
        is_renamed = before in served.manifest.get("was", ())
        if is_renamed and self._has_users(served.version):  # deleted rows stay in the store's files for a while
            return None
        try:
            stored = {table: self.store.open(table, served.version) for table in self._tables}
            old = served.manifest if is_renamed else self._bundles.manifest(before)
        except PartitionMissingError:
            return None
        if before == served.revision:
            return Check(CHECK, True, f"the store has {before}")
        changes, counts = {}, {}
        changed = [table for table in self._tables if describe_files(old, table) != describe_files(served.manifest, table)]
        if changed:
            now, then = (self._bundles.fetch(bundle_id, is_verified=False) for bundle_id in (served.revision, before))
            for table in changed:
                rows, former = BundleRows(now, table), BundleRows(then, table)
                if rows.content.schema != former.content.schema:
                    return None
                changes[table], counts[table] = rows.find_changes(former), rows.content.num_rows
        self.store.update(served.version, served.revision, changes)
        for table, one in changes.items():
            self._log(f"{self.store.where}: {one.rows.num_rows} {table} rows written, {len(one.gone)} removed")
        is_equal = all(stored[table].count() == count for table, count in counts.items())
        return Check(CHECK, True, f"{served.revision} after {before}") if is_equal else None

    def _publish(self, served: _Served) -> Check:
        """Writes all rows as drafts, compares them with the bundle, and adds them as a version if they are equal."""
        bundle, store = self._bundles.fetch(served.revision), self.store
        self._log(f"{served.revision} is published to the {store.where}")
        drafts: dict[VectorTable, str] = {}
        problems: list[str] = []
        facts: dict[str, Any] = {}
        for table in self._tables:
            rows = BundleRows(bundle, table)
            drafts[table] = store.write(table, rows.to_rows(self._log))
            differences, figures = _compare(store.open(table, drafts[table]), rows, bundle)
            problems += differences
            facts |= figures
        if problems:
            for draft in drafts.values():
                store.remove(draft)
            return Check(CHECK, False, f"{'; '.join(problems)}; not served", facts)
        store.add(served.version, served.revision, drafts)
        sentence = ", ".join(
            f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in facts.items()
        )
        return Check(CHECK, True, sentence, facts)


def _read_places(fs: Any, path: str) -> list[str]:
    return list(json.loads(fs.cat_file(path))) if fs.exists(path) else []


def _compare(stored: StoredVectors, rows: BundleRows, bundle: FetchedBundle) -> tuple[list[str], dict[str, Any]]:
    content, keys = rows.content, KEYS[rows.table]
    count, problems = stored.count(), []
    if count != content.num_rows:
        problems.append(f"{rows.table} has {count:,} rows, the bundle {content.num_rows:,}")
    ids = content.column(keys[0]).take(pa.array(choose_rows(content.num_rows, COMPARED_ROWS)))
    wanted = rows.complete(content.filter(pc.is_in(content.column(keys[0]), combine_chunks(ids))))
    names, order = [*keys, VECTORS[rows.table], MODEL_DIGEST], [(key, "ascending") for key in keys]
    wanted = wanted.select(names).sort_by(order)
    found = stored.read(combine_chunks(ids).unique()).select(names).cast(wanted.schema).sort_by(order)
    if not found.equals(wanted):
        problems.append(f"{rows.table} differs from the bundle in some of {wanted.num_rows} rows that were compared")
    facts: dict[str, Any] = {f"{rows.table} rows": count, f"{rows.table} rows compared": wanted.num_rows}
    if rows.table is VectorTable.ITEM:
        recall = facts[f"item recall@{LIST_LENGTH}"] = _measure_recall(stored, rows, bundle)
        if recall < MIN_RECALL:
            problems.append(f"recall of its item index {recall:.4f}, at least {MIN_RECALL} is required")
    return problems, facts


def _measure_recall(stored: StoredVectors, rows: BundleRows, bundle: FetchedBundle) -> float:
    """Returns the fraction of some users' exact lists that the store's lists contain. Items with equal scores are exchangeable."""
    items = to_matrix(rows.content.column(col.ITEM_TOWER_EMB), "item vectors")
    users = map_arrow(bundle.folder / BundleFile.USER_VECTORS).column(col.USER_TOWER_EMB)
    chosen = to_matrix(users.take(pa.array(choose_rows(len(users), COMPARED_ROWS))), "user vectors").reshape(-1, items.shape[1])
    k, index = min(LIST_LENGTH, len(items)), IdIndex(combine_chunks(rows.content.column(col.ITEM_ID)))
    bars = kth_best(items, chosen, [k])[k]
    count = 0
    for user, bar, (ids, _) in zip(chosen, bars, stored.search(chosen, k), strict=True):
        found = np.unique(index.lookup(ids))
        count += int((items[found[found >= 0]] @ user >= bar - _ROUNDING * max(1.0, abs(bar))).sum())
    return min(count / (k * len(chosen)), 1.0)
