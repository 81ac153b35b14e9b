"""The serving bundle: everything that recall needs of a day's model, published as one.

Belongs here: which files there are, what must hold before they are served, the manifest. Does not belong here: finding
the sources (`serving_sources.py`), the vectors (`serving_vectors.py`), placing and pointing (`storage/bundles.py`).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, comparable_ids
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.file_names import BundleFile, ModelFile
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.negatives import count_positives
from dssm_assets.core.serving.fg_files import packed_fg
from dssm_assets.core.serving.golden import popular_items
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.steps.feature_config import RunSettings, indexed_features, open_bucketizer, towers_of
from dssm_assets.steps.training import find_history_days, read_history
from dssm_assets.steps.vectors import pack_item_vectors, pack_user_vectors, read_recent_priors
from dssm_assets.steps.workspace import (
    Check,
    StepResult,
    Workspace,
    check_built_from,
    day_before,
    digests,
    start_of_day_ms,
    window_days,
)
from dssm_assets.storage.bundles import BundleStore, Published
from dssm_assets.storage.layout import BUNDLE_MANIFEST, serving_root
from dssm_assets.storage.local_files import ScratchArrays, write_arrow, write_arrow_table
from dssm_assets.storage.manifest import Manifest

DAY_TABLES = ("user_features_fg", "item_features_fg", "user_history_fg")
"""Tables that say what was known at the end of a day."""


@dataclass(frozen=True)
class ServingSources:
    """A model and the day as of whose end it serves.

    Attributes:
        ds: the evaluation day.
        as_of: the last day that the vectors know of: the evaluation day, or its eve where that day's tables are lacking.
        towers: the fitted `TwoTower`.
        model: the partition that holds them, and their prior.
        settings: of the run that fitted them.
        bucketizer: of the model's feature configuration.
        config_tables: feature_config and feature_counts.
        total: the hit rates of the model.
        corpus: the items that the model was trained to find.
        users: user_features_fg of `as_of`.
        items: item_features_fg of `as_of`.
        past: user_history_fg up to `as_of`.
        recent: positive_sample of the window that ends with `as_of`.
        evaluated: all other partitions between the model and its hit rates.
    """

    ds: str
    as_of: str
    towers: Any
    model: Manifest
    settings: RunSettings
    bucketizer: Bucketizer
    config_tables: tuple[Manifest, Manifest]
    total: Manifest
    corpus: Manifest
    users: Manifest
    items: Manifest
    past: list[Manifest]
    recent: list[Manifest]
    evaluated: tuple[Manifest, ...]

    def end_ms(self, timezone: str) -> int:
        """Returns the instant at which `as_of` ends in a time zone, in unix milliseconds."""
        return start_of_day_ms(self.after, timezone)

    @property
    def after(self) -> str:
        """Returns the day after `as_of`, the first that is served."""
        return _day_after(self.as_of)

    @property
    def inputs(self) -> dict[str, str]:
        """Returns "asset/ds" -> digest of all of them."""
        own = [self.settings.manifest, *self.config_tables, self.total, self.corpus, self.users, self.items]
        return digests([*own, self.past, self.recent, *self.evaluated])


def open_sources(workspace: Workspace, ds: str) -> ServingSources:
    """Returns the sources of a day's bundle.

    Raises:
        PartitionMissingError: a partition is lacking.
        ProvenanceError: something between the model's inputs and its hit rates was made again since: what would be shipped
            is not what was evaluated.
    """
    from dssm_assets.core.training.model_format import model_from_bytes

    settings = towers_of(workspace, ds)
    names = ("total_hit_rate", "hit_counts", "item_vectors", "user_vectors", "dssm_model", "train_samples", "negative_items")
    total, counted, item_vectors, user_vectors, model, samples, corpus = (workspace.need(name, ds) for name in names)
    bucketizer, (config, counts) = open_bucketizer(workspace, ds)
    check_built_from(total, counted)
    check_built_from(counted, item_vectors, user_vectors)
    check_built_from(item_vectors, model)
    check_built_from(user_vectors, model)
    check_built_from(model, settings.manifest, samples)
    check_built_from(samples, config, counts, corpus)
    as_of = _as_of(workspace, ds)
    after = _day_after(as_of)
    return ServingSources(
        ds=ds,
        as_of=as_of,
        towers=model_from_bytes(workspace.artifacts.read_bytes(model, ModelFile.WEIGHTS), settings.spec),
        model=model,
        settings=settings,
        bucketizer=bucketizer,
        config_tables=(config, counts),
        total=total,
        corpus=corpus,
        users=workspace.need("user_features_fg", as_of),
        items=workspace.need("item_features_fg", as_of),
        past=find_history_days(workspace, after),
        recent=workspace.need_all("positive_sample", window_days(after, workspace.config.window.days)),
        evaluated=(counted, item_vectors, user_vectors, model, samples),
    )


def _as_of(workspace: Workspace, ds: str) -> str:
    lacking = [table for table in DAY_TABLES if workspace.find(table, ds) is None]
    if not lacking:
        return ds
    workspace.log(f"{', '.join(lacking)} of {ds} are not materialized: the vectors are those of {day_before(ds)}")
    return day_before(ds)


def _day_after(ds: str) -> str:
    return day_before(ds, -1)


BATCH_ROWS = 4096
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemsServed:
    """The items of a bundle: their ids by row, their stored vectors [I, D], and golden rows as the item tower reads them."""

    index: IdIndex
    vectors: Vectors
    golden: Any


@dataclass(frozen=True)
class UsersServed:
    """The users of a bundle: how many, vectors [S, D] of some of them, and golden rows as the user tower reads them."""

    row_count: int
    sample: Vectors
    golden: Any


def write_items(workspace: Workspace, sources: ServingSources, folder: Path) -> ItemsServed:
    """Writes item_ids.arrow and item_vectors.arrow; rows are in the order of item_features_fg.

    Raises:
        InputError: ids or vectors that cannot be searched, or no item at all.
    """
    from dssm_assets.core.models.tower_input import SideReader
    from dssm_assets.core.models.tower_spec import Side
    from dssm_assets.core.serving.golden import spread_rows
    from dssm_assets.core.training.inference import ItemInference

    spec, indexed = sources.settings.spec, indexed_features(sources.bucketizer, "item")
    inference = ItemInference(sources.towers, BATCH_ROWS)
    vectors = np.empty((sources.items.rows, spec.output_dim), np.float32)
    golden = _Rows(spread_rows(sources.items.rows, workspace.config.serving.golden_rows))
    ids: list[pa.Array] = []
    begin = 0
    for batch in workspace.tables.batches(sources.items, [col.ITEM_ID, *indexed.columns]):
        indices = pa.table(indexed.to_indices(pa.Table.from_batches([batch]), "table item_features_fg"))
        vectors[begin : begin + batch.num_rows] = inference.vectors(indices)
        golden.take(indices, begin)
        ids.append(_ids(batch.column(0), "item"))
        begin += batch.num_rows
    item_ids = pa.concat_arrays(ids) if ids else pa.array([], pa.int64())
    index = IdIndex(item_ids)
    if spec.prior:
        priors = read_recent_priors(workspace, sources.model, sources.recent, sources.after, index)
        vectors = pack_item_vectors(vectors, priors)
    _check_structure("item", item_ids, vectors, sources.items.rows)
    rows = pa.array(np.arange(len(item_ids), dtype=np.int64))
    write_arrow_table(folder / BundleFile.ITEM_IDS, pa.table({col.ITEM_ID: item_ids, "row": rows}))
    write_arrow_table(folder / BundleFile.ITEM_VECTORS, pa.table({col.ITEM_ID: item_ids, col.ITEM_TOWER_EMB: _lists(vectors)}))
    reader = SideReader(golden.table(), "golden items", spec.of(Side.ITEM))
    return ItemsServed(index, vectors, reader.read(np.arange(len(golden))))


def write_users(workspace: Workspace, sources: ServingSources, items: ItemsServed, folder: Path) -> UsersServed:
    """Writes user_vectors.arrow, in the order of user_features_fg.

    Raises:
        InputError: ids or vectors that cannot be searched, or no user at all.
        LeakError: a history goes beyond the day.
    """
    with workspace.tables.partitions.staging() as scratch:
        past = _past(workspace, sources, items, ScratchArrays(scratch))
        return _write_users(workspace, sources, past, folder)


def _write_users(workspace: Workspace, sources: ServingSources, past: tuple[HistoryCsr, pa.Table], folder: Path) -> UsersServed:
    from dssm_assets.core.retrieval.structure import VectorStructure
    from dssm_assets.core.serving.golden import spread_rows

    spec, settings = sources.settings.spec, workspace.config.serving
    width = spec.user_vector_width
    structure = VectorStructure(width=width, expected_row_count=sources.users.rows)
    golden = _Rows(spread_rows(sources.users.rows, settings.golden_rows))
    sampled = _Rows(spread_rows(sources.users.rows, settings.recall_users))
    stored_type = workspace.tables.open(sources.users).schema.field(col.USER_ID).type
    id_type = _ids(pa.array([], stored_type), "user").type
    schema = pa.schema([(col.USER_ID, id_type), (col.USER_TOWER_EMB, pa.list_(pa.float32(), width))])

    def batches() -> Iterator[pa.RecordBatch]:
        begin = 0
        for ids, features, vectors in _user_parts(workspace, sources, past):
            batch = pa.RecordBatch.from_arrays([ids, _lists(vectors)], schema=schema)
            structure.take(batch.column(0), batch.column(1))
            golden.take(features, begin)
            sampled.take(pa.table({col.USER_TOWER_EMB: batch.column(1)}), begin)
            begin += batch.num_rows
            yield batch

    count = write_arrow(folder / BundleFile.USER_VECTORS, schema, batches())
    _check_report("user", structure.report())
    sample = combine_chunks(sampled.table().column(0)).flatten().to_numpy().reshape(-1, spec.item_vector_width)
    return UsersServed(count, sample, _golden_users(golden.table(), past[1], spec, workspace.config.seed))


def _past(
    workspace: Workspace, sources: ServingSources, items: ItemsServed, scratch: ScratchArrays
) -> tuple[HistoryCsr, pa.Table]:
    """Returns all histories up to the end of the day, and their table."""
    history = read_history(workspace, sources.past, items.index, sources.bucketizer, scratch)
    return history, history.to_tables()[0]


def _user_parts(
    workspace: Workspace, sources: ServingSources, past: tuple[HistoryCsr, pa.Table]
) -> Iterator[tuple[pa.Array, pa.Table, Vectors]]:
    """Yields ids, features with the bounds of the histories, and vectors of one part of the users after the other."""
    from dssm_assets.core.training.inference import UserInference

    history, events = past
    as_of_ms = sources.end_ms(workspace.config.calendar.timezone)
    inference = UserInference(sources.towers, events, as_of_ms=as_of_ms, batch_size=BATCH_ROWS)
    indexed = indexed_features(sources.bucketizer, "user")
    for batch in workspace.tables.batches(sources.users, [col.USER_ID, *indexed.columns]):
        rows = history.users.lookup(batch.column(0), where="table user_features_fg, column user_id")
        bounds = [np.where(rows >= 0, _at(bound, rows), 0) for bound in (history.starts, history.ends)]
        features = pa.Table.from_batches([batch]).select([])
        for name, column in indexed.to_indices(pa.Table.from_batches([batch]), "table user_features_fg").items():
            features = features.append_column(name, column)
        vectors = pack_user_vectors(inference.vectors(features, *bounds), sources.settings.spec)
        for name, bound in zip((_START, _END), bounds, strict=True):
            features = features.append_column(name, pa.array(bound))
        yield _ids(batch.column(0), "user"), features, vectors


_START, _END = "history start", "history end"


def _golden_users(table: pa.Table, events: pa.Table, spec: Any, seed: int) -> Any:
    """Returns the rows as the user tower reads them, every second one with a context."""
    from dssm_assets.core.models.history_pooling import HistoryReader
    from dssm_assets.core.models.tower_input import SideReader, TowerInput
    from dssm_assets.core.models.tower_spec import Side
    from dssm_assets.core.serving.golden import golden_contexts

    starts, ends = (table.column(name).to_numpy() for name in (_START, _END))
    features = table.drop_columns([_START, _END])
    for name, column in golden_contexts(spec, table.num_rows, seed).items():
        features = features.append_column(name, column)
    own = SideReader(features, "golden users", spec.of(Side.USER, Side.CONTEXT)).read(np.arange(table.num_rows))
    bags, is_empty = HistoryReader(events, spec).read(starts, ends)
    return TowerInput(own.singles, own.bags + bags, is_empty)


class _Rows:
    """Picks chosen rows out of a table that comes part by part."""

    def __init__(self, chosen: npt.NDArray[np.int64]) -> None:
        self._chosen = chosen
        self._parts: list[pa.Table] = []

    def __len__(self) -> int:
        return len(self._chosen)

    def take(self, part: pa.Table, begin: int) -> None:
        """Takes the part that begins with this row of the whole."""
        inside = self._chosen[(self._chosen >= begin) & (self._chosen < begin + part.num_rows)] - begin
        self._parts.append(part.take(pa.array(inside)))

    def table(self) -> pa.Table:
        """Returns the chosen rows, in order."""
        return pa.concat_tables(self._parts).combine_chunks()


def _ids(column: pa.Array, side: str) -> pa.Array:
    """Returns ids as a bundle stores them, int64 or string."""
    return combine_chunks(comparable_ids(column, f"table {side}_features_fg, column {side}_id"))


def _at(bounds: npt.NDArray[np.int64], rows: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    return bounds[rows] if len(bounds) else np.zeros(len(rows), np.int64)


def _lists(vectors: Vectors) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), vectors.shape[1])


def _check_structure(side: str, ids: pa.Array, vectors: Vectors, expected: int) -> None:
    from dssm_assets.core.retrieval.structure import VectorStructure

    structure = VectorStructure(width=vectors.shape[1], expected_row_count=expected)
    structure.take(ids, _lists(vectors))
    _check_report(side, structure.report())


def _check_report(side: str, report: Any) -> None:
    """Checks that vectors can be searched.

    Raises:
        InputError: they cannot, or there are none.
    """
    if report.passed and report.row_count:
        return
    got = report.sentence if report.row_count else f"no {side}"
    remedy = f"look at {side}_features_fg of the day, or train the model again"
    raise InputError(Fault(f"serving bundle, {side} vectors", "one usable vector per id", got, remedy))


ASSET: Final = "serving_bundle"
_LIBRARIES: Final = ("dssm-assets", "faiss-cpu", "numpy", "onnx", "onnxruntime", "pyarrow", "torch")


def serving_bundle(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Makes and publishes the bundle of each day."""
    for ds in days:
        yield _serving_bundle(workspace, ds)


def bundle_store(workspace: Workspace) -> BundleStore:
    """Returns the store of a configuration's bundles: `<storage.root>/serving`."""
    return BundleStore(serving_root(workspace.loaded.root), workspace.config.storage.options)


def _serving_bundle(workspace: Workspace, ds: str) -> StepResult:
    sources, store = open_sources(workspace, ds), bundle_store(workspace)
    with store.staging() as folder:
        made = _write_files(workspace, sources, folder)
        checks = (_tower_check(workspace, made), _recall_check(workspace, made.index))
        body = _manifest_body(workspace, sources, made)
        if not all(check.is_passed for check in checks):
            return _refused(workspace, ds, body, checks)
        published = store.publish(folder, body, workspace.config.serving.keep_bundles)
    if published.is_current:
        workspace.log(f"{published.bundle_id} is served now")
    else:
        workspace.log(f"{published.bundle_id} is stored and not served: what is served is of a later day")
    facts = _facts(body) | {
        "bundle_id": published.bundle_id,
        "is_served": published.is_current,
        "previous_bundle": published.pointer.previous or "none",
        "bundle_bytes": sum(entry["bytes"] for entry in published.manifest["files"].values()),
        "removed_bundles": list(published.pruned),
    }
    manifest = workspace.artifacts.publish(
        ASSET,
        ds,
        {BUNDLE_MANIFEST: _json(published.manifest)},
        inputs=sources.inputs,
        facts={"bundle_id": published.bundle_id, "is_served": published.is_current},
    )
    return StepResult(manifest, facts, checks, report_markdown=_report(published))


def _refused(workspace: Workspace, ds: str, body: Mapping[str, Any], checks: tuple[Check, ...]) -> StepResult:
    """Returns the result of a bundle that must not be served; what is served and what stood before stay."""
    manifest = workspace.find(ASSET, ds)
    if manifest is None:
        files = {BUNDLE_MANIFEST: _json(body)}
        manifest = workspace.artifacts.publish(ASSET, ds, files, inputs=body["inputs"], facts={"bundle_id": None})
    return StepResult(manifest, _facts(body) | {"bundle_id": "none: not published", "is_served": False}, checks)


@dataclass(frozen=True)
class _Made:
    """What the files of a bundle are and how good they are."""

    items: ItemsServed
    users: UsersServed
    index: Any
    towers: Mapping[str, Any]


def _write_files(workspace: Workspace, sources: ServingSources, folder: Path) -> _Made:
    from dssm_assets.core.retrieval.index import ship_index

    config = workspace.config
    items = write_items(workspace, sources, folder)
    users = write_users(workspace, sources, items, folder)
    towers = _write_towers(workspace, sources, items, users, folder)
    shipped = ship_index(items.vectors, users.sample, config.evaluation.k, config.serving, config.seed)
    _write_index(shipped.index, folder / BundleFile.ITEM_INDEX)
    counts = count_positives(workspace.tables.read(day, [col.ITEM_ID]) for day in sources.recent)
    write_arrow_table(folder / BundleFile.POPULAR_ITEMS, popular_items(counts, items.index))
    for name, manifest in zip((BundleFile.FEATURE_CONFIG, BundleFile.FEATURE_COUNTS), sources.config_tables, strict=True):
        pq.write_table(workspace.tables.read(manifest), folder / name, compression="zstd")
    fg, named_files = packed_fg(workspace.loaded.fg, workspace.loaded.read_fg_file)
    for path, content in ({BundleFile.FG: _json(fg)} | named_files).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return _Made(items, users, shipped, towers)


def _write_towers(
    workspace: Workspace, sources: ServingSources, items: ItemsServed, users: UsersServed, folder: Path
) -> Mapping[str, Any]:
    """Writes the towers; returns how far the written ones are from the trained ones."""
    from dssm_assets.core.serving.golden import compare_item_tower, compare_user_tower
    from dssm_assets.core.serving.tower_export import export_item_tower, export_user_tower
    from dssm_assets.core.serving.tower_layout import describe_towers

    towers = sources.towers
    for name, export in ((BundleFile.USER_TOWER, export_user_tower), (BundleFile.ITEM_TOWER, export_item_tower)):
        exported = export(towers, f"{name}.data")
        (folder / name).write_bytes(exported.model)
        if exported.data:
            with (folder / f"{name}.data").open("wb") as file:
                for piece in exported.data:
                    piece.tofile(file)
    (folder / BundleFile.TOWERS).write_bytes(_json(describe_towers(sources.settings.spec)))
    return {
        "user tower": compare_user_tower(towers, users.golden, _runner(workspace, folder / BundleFile.USER_TOWER)),
        "item tower": compare_item_tower(towers, items.golden, _runner(workspace, folder / BundleFile.ITEM_TOWER)),
    }


def _runner(workspace: Workspace, path: Path) -> Any:
    """Returns a function that runs a model from its file, as whoever serves it will."""
    import onnxruntime

    from dssm_assets.core.serving.tower_layout import OUTPUT

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = workspace.config.training.num_threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run([OUTPUT], feed)[0]


def _write_index(index: Any, path: Path) -> None:
    import faiss

    faiss.write_index(index, str(path))


def _tower_check(workspace: Workspace, made: _Made) -> Check:
    tolerance = workspace.config.serving.max_tower_difference
    facts = {f"max_difference of the {name}": found.largest for name, found in made.towers.items()}
    facts |= {f"golden_rows of the {name}": found.row_count for name, found in made.towers.items()}
    shown = ", ".join(f"{name} {found.largest:.1e} on {found.row_count} rows" for name, found in made.towers.items())
    is_passed = all(found.is_within(tolerance) for found in made.towers.values())
    sentence = f"largest difference of an exported tower's vectors: {shown} (allowed: {tolerance:.1e})"
    return Check("exported_towers", is_passed, sentence if is_passed else f"{sentence}; not published", facts)


def _recall_check(workspace: Workspace, shipped: Any) -> Check:
    wanted = workspace.config.serving.min_index_recall
    found = ", ".join(f"@{k} {recall:.4f}" for k, recall in shipped.recall_at.items())
    is_passed = shipped.lowest_recall >= wanted
    sentence = f"recall of the {shipped.kind} index against exact search: {found} (wanted: {wanted:g})"
    facts = {f"index_recall@{k}": recall for k, recall in shipped.recall_at.items()}
    return Check("index_recall", is_passed, sentence if is_passed else f"{sentence}; not published", facts)


def _manifest_body(workspace: Workspace, sources: ServingSources, made: _Made) -> dict[str, Any]:
    """Returns what the manifest says beside its format and its files. No clock, no path: equal bundles, equal manifests."""
    config, index, spec = workspace.config, made.index, sources.settings.spec
    trained = set(workspace.tables.read(sources.corpus, [col.ITEM_ID]).column(0).to_pylist())
    return {
        "name": config.name,
        "ds": sources.ds,
        "features_as_of": sources.as_of,
        "similarity": spec.similarity.value,
        "dims": spec.item_vector_width,
        "interests": spec.num_interests,
        "has_prior": spec.prior,
        "held_dims": spec.frozen_dim,
        "compared_by": "inner product",
        "users": made.users.row_count,
        "items": len(made.items.index),
        "items_not_trained_on": sum(item not in trained for item in made.items.index.ids.to_pylist()),
        "hash_function": config.features.hash_function.value,
        "timezone": config.calendar.timezone,
        "index": {
            "kind": index.kind,
            "parameters": dict(index.parameters),
            "recall_at": {str(k): round(recall, 6) for k, recall in index.recall_at.items()},
            "recall_users": len(made.users.sample) // spec.num_interests,
        },
        "towers": {name: {"golden_rows": found.row_count} for name, found in made.towers.items()},
        "hit_rate": _hit_rate(workspace, sources),
        "inputs": sources.inputs,
        "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
    }


def _hit_rate(workspace: Workspace, sources: ServingSources) -> dict[str, Any]:
    """Returns k -> the model's warm hit rate on the evaluation day, all items."""
    rows = workspace.tables.read(sources.total).to_pylist()
    chosen = [row for row in rows if (row["scorer"], row["population"], row["scope"]) == ("model", "warm", "all")]
    kept = ("hit_rate", "ci_low", "ci_high", "users", "truth_count")
    return {str(row["k"]): {key: row[key] for key in kept} for row in chosen}


def _facts(body: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("features_as_of", "users", "items", "items_not_trained_on", "dims", "index")
    return {key: body[key] for key in kept}


def _report(published: Published) -> str:
    files = published.manifest["files"]
    lines = [f"| {name} | {entry['bytes']:,} | `{entry['sha256'][:12]}` |" for name, entry in files.items()]
    served = "served now" if published.is_current else "stored, not served"
    head = f"Bundle `{published.bundle_id}`, {served}; before it: `{published.pointer.previous or 'none'}`."
    return "\n".join([head, "", "| file | bytes | sha256 |", "|---|---:|---|", *lines])


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
