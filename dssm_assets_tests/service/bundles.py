"""A serving bundle small enough to compute by hand, written without the code that writes real ones.

    items  n0 (1, 0)   n1 (0, 1)   n2 (0.6, 0.8)   n3 (-1, 0)      compared by inner product
    users  u (1, 0)    v (0, 1)
    popular  n2 9, n0 5, n3 2

The user tower sums the embedding of city (x (1, 0), y (0, 1), any other (-1, -1)), the weighted mean of tags
(p (0.5, 0), q (0, 0.5)), the embedding of page (home (0, 2)), the mean of the history's last two items (their own vectors), the mean
of their brands (b (0, -1)), and (0, 0.25) if the history is empty.

`write_bundle(..., has_channels=True)` adds what merged lists need, and `stores_inputs=True` what is stored of the users' inputs:

    u  city x, no tags    n0 at 1000, n1 at 2000 ms      v  city y, tag q    no events
    neighbours  n0 and n1, n2 and n3

Belongs here: what several test modules need of that bundle. Does not belong here: expectations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.service.bundle.bundle_store import Pointer
from dssm_assets.service.engine.recall_engine import RecallEngine
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets_tests.service.engine.hand_tower import BAGS, DIMS, ITEMS, SINGLES, TABLES, user_tower

USERS = {"u": (1.0, 0.0), "v": (0.0, 1.0)}
NOW_MS = 86_400_000
SIGNALS = {
    "vectors": {"rank": 0.5, "similarity": 0.5},
    "own_history": {"is_own": 1.0, "own_events": 0.5, "own_age": -0.25, "item_repeats": 0.5},
    "item_to_item": {"rank": 0.25, "similarity": 0.0},
    "recent_popularity": {"window_events": 0.25, "recent_events": 0.0, "history_events": 0.0},
}
"""Channel -> signal -> weight of it in merged lists."""
POPULAR = {"n2": 9, "n0": 5, "n3": 2}
FG: dict[str, Any] = {
    "features": [
        {"feature_name": "city", "feature_type": "id_feature", "expression": "user:city", "value_dim": 1},
        {"feature_name": "tags", "feature_type": "id_feature", "expression": "user:tags", "weighted": True},
        {"feature_name": "page", "feature_type": "id_feature", "expression": "context:page", "value_dim": 1},
        {"feature_name": "item", "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "history",
            "features": [
                {"feature_name": "item", "feature_type": "id_feature", "expression": "user:item_ids", "embedding_name": "item"},
                {"feature_name": "brand", "feature_type": "id_feature", "expression": "user:brand"},
            ],
        },
    ]
}
WORDS: dict[str, list[str]] = {
    "city": ["x", "y"],
    "tags": ["p", "q"],
    "page": ["home"],
    "item": list(ITEMS),
    "history__brand": ["b"],
}
"""The vocabulary of each embedding: index 0 is missing, 1 any other value, 2 the first word."""


def vector_of(engine: RecallEngine, inputs: UserInputs, user_id: Any = None) -> np.ndarray:
    """Returns the vector of a user, or raises why there is none."""
    user = engine.users.look_up(user_id, inputs)
    assert user is not None
    (found,) = engine.tower.compute_vectors([user])
    if isinstance(found, Exception):
        raise found
    return found


def write_bundle(
    root: Path,
    ds: str = "2024-01-12",
    *,
    items: Mapping[Any, Sequence[float]] = ITEMS,
    users: Mapping[Any, Sequence[float]] = USERS,
    half_life_days: float | None = None,
    item_columns: pa.Table | None = None,
    has_channels: bool = False,
    stores_inputs: bool = False,
    is_current: bool = True,
    **manifest: Any,
) -> Path:
    """Writes a bundle with more manifest keys and, if is_current, makes it the current one; returns its folder."""
    more = (_channel_files() if has_channels else {}) | ({"user_inputs.arrow": _user_inputs()} if stores_inputs else {})
    item_vectors, user_vectors = (np.array(list(part.values()), np.float32) for part in (items, users))
    index = faiss.IndexFlatIP(item_vectors.shape[1])
    index.add(item_vectors)
    known = [name for name in POPULAR if name in items] or list(items)
    folder = write_files(
        root,
        ds,
        item_ids=pa.array(list(items)),
        item_vectors=item_vectors,
        user_ids=pa.array(list(users)),
        user_vectors=user_vectors,
        popular=pa.table({"item_id": known, "count": [POPULAR.get(name, 1) for name in known]}),
        index=index,
        half_life_days=half_life_days,
        item_columns=item_columns,
        more=more,
        **manifest,
    )
    if is_current:
        point_to(root, folder.name)
    return folder


def write_files(
    root: Path,
    ds: str,
    *,
    item_ids: pa.Array,
    item_vectors: np.ndarray,
    user_ids: pa.Array,
    user_vectors: np.ndarray,
    popular: pa.Table,
    index: faiss.Index,
    half_life_days: float | None = None,
    item_columns: pa.Table | None = None,
    more: Mapping[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """Writes the files of a bundle, also `more` (tables, or JSON content), and its manifest; the user tower fills dimensions beyond the second with zeros.

    Returns its folder, whose name is the id.
    """
    folder = root / "bundles" / f"{ds}-staged"
    folder.mkdir(parents=True)
    dims = item_vectors.shape[1]
    faiss.write_index(index, str(folder / "item_index.faiss"))
    rows = pa.array(np.arange(len(item_ids)))
    _arrow(folder / "item_ids.arrow", pa.table({"item_id": item_ids, "row": rows}))
    _arrow(folder / "item_vectors.arrow", pa.table({"item_id": item_ids, "item_tower_emb": _fixed(item_vectors)}))
    _arrow(folder / "user_vectors.arrow", pa.table({"user_id": user_ids, "user_tower_emb": _fixed(user_vectors)}))
    _arrow(folder / "popular_items.arrow", popular)
    if item_columns is not None:
        _arrow(folder / "item_columns.arrow", item_columns)
    for name, content in (more or {}).items():
        if isinstance(content, pa.Table):
            _arrow(folder / name, content)
        else:
            (folder / name).write_text(json.dumps(content))
    (folder / "fg.json").write_text(json.dumps(FG))
    pq.write_table(_feature_config(), folder / "feature_config.parquet")
    pq.write_table(CATEGORY_VALUE_COUNTS.schema.empty_table(), folder / "feature_counts.parquet")
    (folder / "towers.json").write_text(json.dumps({"spec": tower_spec(half_life_days, dims)}))
    (folder / "user_tower.onnx").write_bytes(user_tower(dims).SerializeToString())
    return write_manifest(folder, items=len(item_ids), users=len(user_ids), dims=dims, **manifest)


def write_manifest(folder: Path, **changes: Any) -> Path:
    """Writes the manifest of the files in a folder; returns the folder, renamed to the resulting id."""
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.name != "manifest.json"
    }
    manifest = {
        "format": 1,
        "name": "hand",
        "ds": folder.name[:10],
        "features_as_of": folder.name[:10],
        "similarity": "INNER_PRODUCT",
        "dims": DIMS,
        "items": len(ITEMS),
        "users": len(USERS),
        "files": files,
        "index": {"kind": "Flat", "parameters": {}, "recall_at": {"200": 1.0}},
        **changes,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return folder.rename(folder.with_name(f"{manifest['ds']}-{digest[:12]}"))


def renew_manifest(folder: Path, **changes: Any) -> Path:
    """Renews the manifest of changed files and makes the bundle the current one; returns its folder."""
    renamed = write_manifest(folder, **changes)
    point_to(renamed.parent.parent, renamed.name)
    return renamed


def point_to(root: Path, bundle_id: str) -> None:
    """Makes a bundle the current one, in one step."""
    staged = root / "current.json.part"
    staged.write_text(Pointer((bundle_id,), (bundle_id,), bundle_id[:10]).to_json())
    staged.replace(root / "current.json")


def tower_spec(half_life_days: float | None = None, dims: int = DIMS) -> dict[str, Any]:
    features = [
        *(_tower_feature(name, str(side), name) for name, side in SINGLES.items()),
        _tower_feature("tags", "user", "tags", is_multi=True, is_weighted=True),
        _tower_feature("item", "item", "item"),
        *(_tower_feature(name, "sequence", embedding) for name, embedding in BAGS.items() if name != "tags"),
    ]
    return {
        "features": features,
        "output_dim": dims,
        "hidden_units": [],
        "dropout": 0.0,
        "similarity": "INNER_PRODUCT",
        "temperature": 1.0,
        "history_length": 2,
        "history_half_life_days": half_life_days,
    }


def _channel_files() -> dict[str, Any]:
    names = ("list_name", "channel", "signal", "other_channel", "other_signal", "weight")
    rows = [("merged", "intercept", "intercept", "", "", -7.0)]
    rows += [
        ("merged", channel, signal, "", "", weight) for channel, part in SIGNALS.items() for signal, weight in part.items()
    ]
    items = {
        "window_events": pa.array([5, 0, 9, 2], pa.int64()),
        "recent_events": pa.array([1.0, 0, 3, 2]),
        "history_events": pa.array([5, 0, 9, 2], pa.int64()),
        "window_users": pa.array([2, 0, 3, 2], pa.int64()),
        "neighbors": pa.array([[1], [0], [3], [2]], pa.large_list(pa.int32())),
        "similarities": pa.array([[0.5]] * 4, pa.large_list(pa.float64())),
    }
    own = {
        "item_rows": pa.array([[0, 1], []], pa.large_list(pa.int32())),
        "counts": pa.array([[1, 1], []], pa.large_list(pa.int32())),
        "last_times_ms": pa.array([[1000, 2000], []], pa.large_list(pa.int64())),
    }
    depths = {"vectors": 4, "own_history": 4, "item_to_item": 2, "recent_popularity": 2}
    weights = [dict(zip(names, row, strict=True)) for row in rows]
    return {
        "channels.json": {"version": 5, "now_ms": NOW_MS, "depths": depths, "weights": weights},
        "item_channels.arrow": pa.table(items),
        "own_items.arrow": pa.table(own),
    }


def _user_inputs() -> pa.Table:
    indices, times = pa.large_list(pa.int32()), pa.large_list(pa.int64())
    return pa.table(
        {
            "city": pa.array([2, 3], pa.int32()),
            "tags": pa.array([[], [3]], pa.list_(pa.int32())),
            "tags__weights": pa.array([[], [1.0]], pa.list_(pa.float32())),
            "history/item_rows": pa.array([[0, 1], []], indices),
            "history/event_times_ms": pa.array([[1000, 2000], []], times),
            "history/history__item": pa.array([[2, 3], []], indices),
            "history/history__brand": pa.array([[0, 0], []], indices),
        }
    )


def _feature_config() -> pa.Table:
    rows = []
    for name, side, sequence, embedding in (
        ("city", Side.USER, None, "city"),
        ("tags", Side.USER, None, "tags"),
        ("page", Side.CONTEXT, None, "page"),
        ("item", Side.ITEM, None, "item"),
        ("history__item", Side.USER, "history", "item"),
        ("history__brand", Side.USER, "history", "history__brand"),
    ):
        info = FeatureInfo(
            side=side,
            kind=Kind.CATEGORICAL,
            is_multi=name == "tags",
            is_weighted=True if name == "tags" else None,
            sequence_name=sequence,
            embedding_name=embedding,
            embedding_dim=DIMS,
            num_embeddings=len(TABLES[embedding]),
            vocab_list=WORDS[embedding],
        )
        rows.append({"feature": name, "feature_info": info.to_json(), "message": "by hand"})
    return pa.Table.from_pylist(rows)


def _tower_feature(name: str, side: str, embedding: str, **more: Any) -> dict[str, Any]:
    sizes = {"embedding_name": embedding, "embedding_dim": DIMS, "num_embeddings": len(TABLES[embedding])}
    return {"name": name, "side": side, **sizes, "is_multi": False, "is_weighted": False, **more}


def _fixed(vectors: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])


def _arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1 << 62)
