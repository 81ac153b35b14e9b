"""Packing a fg.json with the files that it names: files are renamed by content, features stay the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.serving.bundle_contents import pack_fg, rank_popular_items

CONTENT = {"/etc/words/colour.txt": b"red\nblue\n", "../colour.txt": b"green\n"}


def fg() -> dict[str, Any]:
    def feature(name: str, file: str) -> dict[str, Any]:
        keys = {"vocab_file": file, "default_bucketize_value": 0}
        return {"feature_type": "id_feature", "feature_name": name, "expression": f"user:{name}", **keys}

    # The third feature has a file's name as an ordinary value.
    other = {"feature_type": "id_feature", "feature_name": "c", "expression": "user:c", "default_value": "../colour.txt"}
    return {"features": [feature("a", "/etc/words/colour.txt"), feature("b", "../colour.txt"), other]}


def test_named_files_are_renamed_by_content() -> None:
    raw = fg()
    packed, files = pack_fg(raw, CONTENT.__getitem__)
    names = [f"fg_files/{hashlib.sha256(content).hexdigest()[:12]}-colour.txt" for content in CONTENT.values()]
    assert files == dict(zip(names, CONTENT.values(), strict=True))
    assert [feature.get("vocab_file") for feature in packed["features"]] == [*names, None]
    assert packed["features"][2]["default_value"] == "../colour.txt"
    assert raw == fg()
    packed_generator = FeatureGenerator.from_fg_json(json.loads(json.dumps(packed)), read_file=files.__getitem__)
    original_generator = FeatureGenerator.from_fg_json(raw, read_file=CONTENT.__getitem__)
    for request in ({"a": "blue", "b": "green"}, {"a": "green", "b": "red"}):
        assert packed_generator.bucketize_one(request) == original_generator.bucketize_one(request)


def test_definitions_without_files_do_not_change() -> None:
    raw = {"features": [{"feature_type": "id_feature", "feature_name": "a", "expression": "user:a"}], "reserves": ["x"]}
    assert pack_fg(raw, CONTENT.__getitem__) == (raw, {})


def test_unreadable_file_is_named() -> None:
    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(FeatureSpecError, match=r"colour\.txt"):
        pack_fg(fg(), missing)


def test_popular_items_are_sorted_by_count_then_id() -> None:
    counts = pa.table({"item_id": ["d", "a", "x", "b", "c"], "count": pa.array([2, 5, 9, 2, 0], pa.int64())})
    found = rank_popular_items(counts, IdIndex(pa.array(["b", "c", "d", "a"])))
    # x is not in the corpus and c has no positive event.
    assert found.to_pylist() == [{"item_id": "a", "count": 5}, {"item_id": "b", "count": 2}, {"item_id": "d", "count": 2}]


def test_popular_items_without_positives_are_empty() -> None:
    counts = pa.table({"item_id": pa.array([], pa.int64()), "count": pa.array([], pa.int64())})
    assert rank_popular_items(counts, IdIndex(pa.array([1, 2]))).num_rows == 0
