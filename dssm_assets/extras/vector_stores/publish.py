"""The step of `vector_store`, and what makes the store follow the served bundle: after a delta, a rollback, and in a cleanup.

The store has the bundle that is served and the one before it. A version is written aside and compared with the bundle; only then is it
served. If the pointer of the bundles has moved meanwhile, the newer bundle's publisher serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from dssm_assets.core.errors import CheckFailedError, Fault, PartitionMissingError, StorageError, remedy_of_missing
from dssm_assets.core.features.parity import choose_rows
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.index import kth_best
from dssm_assets.core.retrieval.vectors import to_matrix
from dssm_assets.extras.vector_stores.bundle_rows import BundleRows
from dssm_assets.extras.vector_stores.store import KEYS, MODEL_DIGEST, VECTOR, StoredVectors, VectorStore
from dssm_assets.extras.vector_stores.stores import open_configured
from dssm_assets.steps.workspace import Check, StepResult, Workspace, digests, each_day
from dssm_assets.storage.bundles import BundleStore, FetchedBundle, Pointer, base_of, open_bundles
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.local_files import map_arrow

ASSET: Final = "vector_store"
MIN_RECALL: Final = 0.95
COMPARED_ROWS: Final = 100
"""Vectors that are compared, and users whose lists the recall is measured with."""
LIST_LENGTH: Final = 200
_ROUNDING: Final = 1e-5

Log = Callable[[str], None]


@dataclass(frozen=True)
class _Served:
    """The served bundle: the id of the whole one, its own, which differs where it is a delta, and its files on the local disk.

    `stored` are all bundles that are stored.
    """

    version: str
    revision: str
    bundle: FetchedBundle
    stored: Sequence[str]


@each_day
def vector_store(workspace: Workspace, ds: str) -> StepResult:
    """Publishes the bundle of a day, with its deltas, if it is served."""
    source, bundles = workspace.need("serving_bundle", ds), open_bundles(workspace.loaded)
    served = _open_served(bundles)
    check = Check("stored_vectors", True, f"the bundle of {ds} is not served, so nothing was published")
    facts: dict[str, Any] = {"is_served": False}
    if served.version == source.facts["bundle_id"]:
        store = open_configured(workspace.loaded)
        workspace.log(f"{served.revision} is published to the {store.where}")
        check = _publish(store, bundles, served, _tables(workspace.loaded), workspace.log)
        manifest = served.bundle.manifest
        facts = {
            "is_served": check.is_passed,
            "bundle_id": served.revision,
            "store": store.where,
            "similarity": manifest["similarity"],
            "compared_by": "inner product; cosine vectors have unit length",
            **check.facts,
        }
    stored = {key: facts.get(key) for key in ("bundle_id", "is_served")}
    files = {"store.json": json.dumps(facts, indent=1).encode()}
    return StepResult(workspace.artifacts.publish(ASSET, ds, files, inputs=digests([source]), facts=stored), facts, (check,))


def on_served(loaded: LoadedConfig, log: Log) -> None:
    """Makes a configured store follow the bundle that is served now: by what differs where it has a revision of the same bundle.

    Raises:
        CheckFailedError: a whole version had to be written and is not that of the bundle; the one before keeps serving.
        StorageError: the store cannot be reached; `publish --delta` or a materialization of the asset repairs it.
    """
    if loaded.config.vector_store is None:
        return
    bundles, store = open_bundles(loaded), open_configured(loaded)
    served, tables = _open_served(bundles), _tables(loaded)
    before = store.find_versions().get(served.version)
    if before is None or before not in served.stored:
        check = _publish(store, bundles, served, tables, log)
        if not check.is_passed:
            remedy = "materialize vector_store once the store keeps what is written, or choose another"
            raise CheckFailedError(f"{store.where}: {check.description}. To fix: {remedy}")
        return
    if before != served.revision:
        old = bundles.fetch(before, is_verified=False)
        changes = {table: BundleRows(served.bundle, table).find_changes(BundleRows(old, table)) for table in tables}
        store.update(served.version, served.revision, changes)
        counts = ", ".join(
            f"{one.rows.num_rows} {table} rows written, {len(one.gone)} removed" for table, one in changes.items()
        )
        log(f"{store.where}: {served.revision} after {before}: {counts}")
    _serve(store, bundles, served.version, log)


def on_cleaned(workspace: Workspace, before: float, *, removes: bool) -> set[str]:
    """Removes versions that no bundle needs, and drafts begun before a unix time; returns no files. A store that is away is logged."""
    loaded = workspace.loaded
    pointer = open_bundles(loaded).pointer()
    if pointer is None or (loaded.config.vector_store is None and not workspace.tables.partitions.days(ASSET)):
        return set()
    try:
        store = open_configured(loaded)
        for name in store.find_removable(_kept(open_bundles(loaded), pointer), before):
            workspace.log(f"{store.where}: {name} {'is' if removes else 'would be'} removed")
            if removes:
                store.remove(name)
    except StorageError as error:
        workspace.log(str(error))
    return set()


def _tables(loaded: LoadedConfig) -> Sequence[VectorTable]:
    return (loaded.config.vector_store or VectorStoreSettings()).tables


def _open_served(bundles: BundleStore) -> _Served:
    pointer = bundles.pointer()
    if pointer is None:
        remedy = remedy_of_missing("publish", "DAY")
        raise PartitionMissingError(Fault(f"serving root {bundles.root}", "a bundle that is served", "none", remedy))
    bundle = bundles.fetch(pointer.bundle_id)
    return _Served(base_of(bundle.manifest) or pointer.bundle_id, pointer.bundle_id, bundle, pointer.stored)


def _publish(store: VectorStore, bundles: BundleStore, served: _Served, tables: Sequence[VectorTable], log: Log) -> Check:
    """Writes a whole version and compares it with the bundle; serves it if they are alike."""
    drafts: dict[VectorTable, str] = {}
    problems: list[str] = []
    facts: dict[str, Any] = {}
    for table in tables:
        rows = BundleRows(served.bundle, table)
        drafts[table] = store.write(table, rows.to_rows(log))
        differences, figures = _compare(store.open(table, drafts[table]), rows, served.bundle)
        problems += differences
        facts |= figures
    if problems:
        for draft in drafts.values():
            store.remove(draft)
        return Check("stored_vectors", False, f"{'; '.join(problems)}; not served", facts)
    store.add(served.version, served.revision, drafts)
    _serve(store, bundles, served.version, log)
    sentence = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in facts.items()
    )
    return Check("stored_vectors", True, sentence, facts)


def _serve(store: VectorStore, bundles: BundleStore, version: str, log: Log) -> None:
    """Serves a version of the store if its bundle is served, and removes the versions that no bundle needs."""
    pointer = bundles.pointer()
    if pointer is None or (base_of(bundles.manifest(pointer.bundle_id)) or pointer.bundle_id) != version:
        log(f"{store.where}: another bundle than {version} is served by now, whose publisher goes on")
        return
    store.serve(version)
    for name in store.find_removable(_kept(bundles, pointer), before=0):
        store.remove(name)


def _kept(bundles: BundleStore, pointer: Pointer) -> set[str]:
    """Returns the whole bundles of the one that is served and the one before it."""
    return {base_of(bundles.manifest(bundle_id)) or bundle_id for bundle_id in pointer.trail[-2:]}


def _compare(stored: StoredVectors, rows: BundleRows, bundle: FetchedBundle) -> tuple[list[str], dict[str, Any]]:
    """Compares the number of rows and some rows with those of a bundle, and lists of items with exact ones; returns problems and figures."""
    content, keys = rows.content, KEYS[rows.table]
    count, problems = stored.count(), []
    if count != content.num_rows:
        problems.append(f"{rows.table} has {count:,} rows, the bundle {content.num_rows:,}")
    ids = content.column(keys[0]).take(pa.array(choose_rows(content.num_rows, COMPARED_ROWS)))
    wanted = rows.complete(content.filter(pc.is_in(content.column(keys[0]), combine_chunks(ids))))
    names, order = [*keys, VECTOR, MODEL_DIGEST], [(key, "ascending") for key in keys]
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
    """Returns which fraction of the exact lists of some users the store's lists have; among equal scores any item is right."""
    items = to_matrix(rows.content.column(VECTOR), "item vectors")
    users = map_arrow(bundle.folder / BundleFile.USER_VECTORS).column(col.USER_TOWER_EMB)
    chosen = to_matrix(users.take(pa.array(choose_rows(len(users), COMPARED_ROWS))), "user vectors").reshape(-1, items.shape[1])
    k, index = min(LIST_LENGTH, len(items)), IdIndex(combine_chunks(rows.content.column(col.ITEM_ID)))
    bars = kth_best(items, chosen, [k])[k]
    count = 0
    for user, bar, (ids, _) in zip(chosen, bars, stored.search(chosen, k), strict=True):
        found = np.unique(index.lookup(ids))
        count += int((items[found[found >= 0]] @ user >= bar - _ROUNDING * max(1.0, abs(bar))).sum())
    return min(count / (k * len(chosen)), 1.0)
