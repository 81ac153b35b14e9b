"""The serving bundle: everything that recall needs of a day's model, published as one.

Belongs here: which files there are, what must hold before they are served, the manifest. Does not belong here: finding
the sources (`serving_sources.py`), the vectors (`serving_vectors.py`), placing and pointing (`storage/bundle_store.py`).
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.samples.negative_items import count_positives
from dssm_assets.core.serving.fg_files import packed_fg
from dssm_assets.core.serving.popular_items import popular_items
from dssm_assets.steps.serving_sources import ServingSources, open_sources
from dssm_assets.steps.serving_vectors import ItemsServed, UsersServed, write_items, write_users
from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.arrow_file import write_arrow_table
from dssm_assets.storage.bundle_store import MANIFEST, BundleStore, Published

ASSET: Final = "serving_bundle"
FOLDER: Final = "serving"
_LIBRARIES: Final = ("dssm-assets", "faiss-cpu", "numpy", "onnx", "onnxruntime", "pyarrow", "torch")


def serving_bundle(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Makes and publishes the bundle of each day."""
    for ds in days:
        yield _serving_bundle(workspace, ds)


def bundle_store(workspace: Workspace) -> BundleStore:
    """Returns the store of a configuration's bundles: `<storage.root>/serving`."""
    root = workspace.loaded.root.rstrip("/")
    return BundleStore(f"{root}/{FOLDER}", workspace.config.storage.options)


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
        {MANIFEST: _json(published.manifest)},
        inputs=sources.inputs,
        facts={"bundle_id": published.bundle_id, "is_served": published.is_current},
    )
    return StepResult(manifest, facts, checks, report_markdown=_report(published))


def _refused(workspace: Workspace, ds: str, body: Mapping[str, Any], checks: tuple[Check, ...]) -> StepResult:
    """Returns the result of a bundle that must not be served; what is served and what stood before stay."""
    manifest = workspace.find(ASSET, ds)
    if manifest is None:
        files = {MANIFEST: _json(body)}
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
    _write_index(shipped.index, folder / "item_index.faiss")
    counts = count_positives(workspace.tables.read(day, [col.ITEM_ID]) for day in sources.recent)
    write_arrow_table(folder / "popular_items.arrow", popular_items(counts, items.index))
    for name, manifest in zip(("feature_config", "feature_counts"), sources.config_tables, strict=True):
        pq.write_table(workspace.tables.read(manifest), folder / f"{name}.parquet", compression="zstd")
    fg, named_files = packed_fg(workspace.loaded.fg, workspace.loaded.read_fg_file)
    for path, content in ({"fg.json": _json(fg)} | named_files).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
    return _Made(items, users, shipped, towers)


def _write_towers(
    workspace: Workspace, sources: ServingSources, items: ItemsServed, users: UsersServed, folder: Path
) -> Mapping[str, Any]:
    """Writes the towers; returns how far the written ones are from the trained ones."""
    from dssm_assets.core.serving.golden import compare_item_tower, compare_user_tower
    from dssm_assets.core.serving.tower_description import ITEM_TOWER, USER_TOWER, describe_towers
    from dssm_assets.core.serving.tower_export import export_item_tower, export_user_tower

    towers = sources.towers
    for name, export in ((USER_TOWER, export_user_tower), (ITEM_TOWER, export_item_tower)):
        exported = export(towers, f"{name}.data")
        (folder / name).write_bytes(exported.model)
        if exported.data:
            with (folder / f"{name}.data").open("wb") as file:
                for piece in exported.data:
                    piece.tofile(file)
    (folder / "towers.json").write_bytes(_json(describe_towers(sources.settings.spec)))
    return {
        "user tower": compare_user_tower(towers, users.golden, _runner(workspace, folder / USER_TOWER)),
        "item tower": compare_item_tower(towers, items.golden, _runner(workspace, folder / ITEM_TOWER)),
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
        "held_dims": spec.held_dim,
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
