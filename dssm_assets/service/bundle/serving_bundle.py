"""The step of serving_bundle: writes, checks and publishes everything of a day's model that recall needs.

Belongs here: the files of a bundle, the checks before it is served, its manifest. Does not belong here: vectors
(`served_vectors.py`), storing a bundle and moving the pointer (`bundle_store.py`).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.index import ShippedIndex, ship_index
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.core.samples.negatives import count_positives
from dssm_assets.service.bundle import served_vectors
from dssm_assets.service.bundle.bundle_contents import pack_fg, rank_popular_items
from dssm_assets.service.bundle.bundle_store import Published, open_bundles
from dssm_assets.service.bundle.golden import RunTower, TowerDifference, compare_towers
from dssm_assets.service.bundle.onnx_session import open_session
from dssm_assets.service.bundle.tower_export import export_tower
from dssm_assets.service.bundle.tower_layout import OUTPUT, describe_towers
from dssm_assets.steps.training import read_history
from dssm_assets.steps.workspace import Check, StepResult, Workspace, each_day
from dssm_assets.storage.layout import BUNDLE_MANIFEST
from dssm_assets.storage.local_files import ScratchArrays, write_arrow_table

ASSET: Final = "serving_bundle"
MAX_TOWER_DIFFERENCE: Final = 1e-5
"""Largest allowed difference between an exported tower's vectors and the trained tower's, see `TowerDifference.is_within`."""
_LIBRARIES: Final = ("dssm-assets", "faiss-cpu", "numpy", "onnx", "onnxruntime", "pyarrow", "torch")


@each_day
def serving_bundle(workspace: Workspace, ds: str) -> StepResult:
    inputs, store = served_vectors.open_inputs(workspace, ds), open_bundles(workspace.loaded)
    with store.staging() as folder:
        contents = _write_files(workspace, inputs, folder)
        checks = (_check_towers(contents.towers), _check_index(workspace, contents.index))
        body = _manifest_body(workspace, inputs, contents)
        if not all(check.is_passed for check in checks):
            return _keep_previous(workspace, ds, body, checks)
        published = store.publish(folder, body, workspace.config.serving.keep_bundles)
    if published.is_current:
        workspace.log(f"{published.bundle_id} is served now")
    else:
        workspace.log(f"{published.bundle_id} is stored but not served: the served bundle is of a later day")
    facts = _facts(body) | {
        "bundle_id": published.bundle_id,
        "is_served": published.is_current,
        "previous_bundle": published.pointer.previous or "none",
        "bundle_bytes": sum(entry["bytes"] for entry in published.manifest["files"].values()),
        "removed_bundles": list(published.pruned),
    }
    stored = {key: facts[key] for key in ("bundle_id", "is_served")}
    files = {BUNDLE_MANIFEST: _json(published.manifest)}
    manifest = workspace.artifacts.publish(ASSET, ds, files, inputs=inputs.digests, facts=stored)
    return StepResult(manifest, facts, checks, report_markdown=_report(published))


def _keep_previous(workspace: Workspace, ds: str, body: Mapping[str, Any], checks: tuple[Check, ...]) -> StepResult:
    """Keeps the served bundle and an existing partition, because a check failed."""
    manifest = workspace.find(ASSET, ds)
    if manifest is None:
        files = {BUNDLE_MANIFEST: _json(body)}
        manifest = workspace.artifacts.publish(ASSET, ds, files, inputs=body["inputs"], facts={"bundle_id": None})
    return StepResult(manifest, _facts(body) | {"bundle_id": "none: not published", "is_served": False}, checks)


@dataclass(frozen=True)
class _Contents:
    """The files in a bundle's folder. `towers`: the difference between each exported tower and the trained tower."""

    items: served_vectors.BundleItems
    users: served_vectors.BundleUsers
    index: ShippedIndex
    towers: Mapping[str, TowerDifference]


def _write_files(workspace: Workspace, inputs: served_vectors.BundleInputs, folder: Path) -> _Contents:
    config = workspace.config
    items = served_vectors.write_items(workspace, inputs, folder)
    served_vectors.write_filter_columns(workspace, inputs, items, folder)
    with workspace.tables.partitions.staging() as place:
        scratch = ScratchArrays(place)
        history = read_history(workspace, inputs.history, items.index, inputs.bucketizer, scratch)
        users = served_vectors.write_users(workspace, inputs, history, len(items.index), folder)
        with ThreadPoolExecutor(1) as pool:  # FAISS works without Python's lock, meanwhile the other files are written
            shipping = pool.submit(_ship_index, workspace.config, items.vectors, users.sample)
            if config.channels.is_enabled:
                served_vectors.write_channels(workspace, inputs, history, items.index, scratch, folder)
            towers = _write_towers(workspace, inputs, items, users, folder)
            shipped = shipping.result()
    faiss.write_index(shipped.index, str(folder / BundleFile.ITEM_INDEX))
    counts = count_positives(workspace.tables.read(day, [col.ITEM_ID]) for day in inputs.recent)
    write_arrow_table(folder / BundleFile.POPULAR_ITEMS, rank_popular_items(counts, items.index))
    for name, manifest in zip((BundleFile.FEATURE_CONFIG, BundleFile.FEATURE_COUNTS), inputs.config_tables, strict=True):
        pq.write_table(workspace.tables.read(manifest), folder / name, compression="zstd")
    fg, named_files = pack_fg(workspace.loaded.fg, workspace.loaded.read_fg_file)
    for path, content in ({BundleFile.FG: _json(fg)} | named_files).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return _Contents(items, users, shipped, towers)


def _ship_index(config: PipelineConfig, items: Vectors, users: Vectors) -> ShippedIndex:
    faiss.omp_set_num_threads(config.training.num_threads)  # of this thread; the index depends on it
    return ship_index(items, users, config.evaluation.k, config.serving, config.seed)


def _write_towers(
    workspace: Workspace,
    inputs: served_vectors.BundleInputs,
    items: served_vectors.BundleItems,
    users: served_vectors.BundleUsers,
    folder: Path,
) -> Mapping[str, TowerDifference]:
    towers = inputs.towers
    for name in (BundleFile.USER_TOWER, BundleFile.ITEM_TOWER):
        exported = export_tower(towers, f"{name}.data", is_user=name is BundleFile.USER_TOWER)
        (folder / name).write_bytes(exported.model)
        if exported.data:
            with (folder / f"{name}.data").open("wb") as file:
                for piece in exported.data:
                    file.write(np.ascontiguousarray(piece).data)
    (folder / BundleFile.TOWERS).write_bytes(_json(describe_towers(inputs.settings.spec)))
    user_tower, item_tower = (_open_tower(workspace, folder / name) for name in (BundleFile.USER_TOWER, BundleFile.ITEM_TOWER))
    return {
        "user tower": compare_towers(towers, users.golden, user_tower, is_user=True),
        "item tower": compare_towers(towers, items.golden, item_tower, is_user=False),
    }


def _open_tower(workspace: Workspace, path: Path) -> RunTower:
    session = open_session(path, workspace.config.training.num_threads)
    return lambda feed: session.run([OUTPUT], feed)[0]


def _check_towers(towers: Mapping[str, TowerDifference]) -> Check:
    facts = {f"max_difference of the {name}": one.largest for name, one in towers.items()}
    facts |= {f"golden_rows of the {name}": one.row_count for name, one in towers.items()}
    differences = ", ".join(f"{name} {one.largest:.1e} on {one.row_count} rows" for name, one in towers.items())
    sentence = f"largest difference of an exported tower's vectors: {differences} (allowed: {MAX_TOWER_DIFFERENCE:.1e})"
    return _make_check("exported_towers", all(one.is_within(MAX_TOWER_DIFFERENCE) for one in towers.values()), sentence, facts)


def _check_index(workspace: Workspace, shipped: ShippedIndex) -> Check:
    required = workspace.config.serving.min_index_recall
    found = ", ".join(f"@{k} {recall:.4f}" for k, recall in shipped.recall_at.items())
    sentence = f"recall of the {shipped.kind} index against exact search: {found} (required: {required:g})"
    facts = {f"index_recall@{k}": recall for k, recall in shipped.recall_at.items()}
    return _make_check("index_recall", shipped.lowest_recall >= required, sentence, facts)


def _make_check(name: str, is_passed: bool, sentence: str, facts: Mapping[str, Any]) -> Check:
    return Check(name, is_passed, sentence if is_passed else f"{sentence}; not published", facts)


def _manifest_body(workspace: Workspace, inputs: served_vectors.BundleInputs, contents: _Contents) -> dict[str, Any]:
    """Returns the manifest without format and files. It has no timestamp and no path, so equal bundles have equal manifests."""
    config, spec = workspace.config, inputs.settings.spec
    kept = ("hit_rate", "ci_low", "ci_high", "users", "truth_count")
    hit_rate = {
        str(row["k"]): {key: row[key] for key in kept}
        for row in workspace.tables.read(inputs.total).to_pylist()
        if (row["scorer"], row["population"], row["scope"]) == ("model", "warm", "all")
    }
    trained = set(workspace.tables.read(inputs.corpus, [col.ITEM_ID]).column(0).to_pylist())
    return {
        "name": config.name,
        "ds": inputs.ds,
        "features_as_of": inputs.as_of,
        "similarity": spec.similarity.value,
        "dims": spec.item_vector_width,
        "interests": spec.num_interests,
        "has_prior": spec.prior,
        "frozen_dims": spec.frozen_dim,
        "compared_by": "inner product",
        "users": inputs.users.rows,
        "items": len(contents.items.index),
        "items_not_trained_on": sum(item not in trained for item in contents.items.index.ids.to_pylist()),
        "hash_function": config.features.hash_function.value,
        "calendar_start": config.calendar.start.isoformat(),
        "timezone": config.calendar.timezone,
        "index": served_vectors.describe_index(contents.index, len(contents.users.sample) // spec.num_interests),
        "towers": {name: {"golden_rows": found.row_count} for name, found in contents.towers.items()},
        "has_channels": config.channels.is_enabled,
        "hit_rate": hit_rate,
        "inputs": inputs.digests,
        "versions": {library: importlib.metadata.version(library) for library in _LIBRARIES},
    }


def _facts(body: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("features_as_of", "users", "items", "items_not_trained_on", "dims", "index")
    return {key: body[key] for key in kept}


def _report(published: Published) -> str:
    files = published.manifest["files"]
    lines = [f"| {name} | {entry['bytes']:,} | `{entry['sha256'][:12]}` |" for name, entry in files.items()]
    served = "served now" if published.is_current else "stored, not served"
    head = f"Bundle `{published.bundle_id}`, {served}; previous bundle: `{published.pointer.previous or 'none'}`."
    return "\n".join([head, "", "| file | bytes | sha256 |", "|---|---:|---|", *lines])


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
