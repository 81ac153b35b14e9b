"""Small files of a bundle: fg.json with renamed files, popular items, users' inputs and own items."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.service.bundle.bundle_contents import (
    history_reach,
    list_own_items,
    list_user_inputs,
    pack_fg,
    rank_popular_items,
)
from dssm_assets_tests.service.bundles import tower_spec

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


HISTORY = HistoryCsr(
    users=IdIndex(pa.array(["u", "v"])),
    starts=np.array([0, 3]),
    ends=np.array([3, 4]),
    item_index=np.array([5, 6, 7, -1], np.int32),
    event_time_ms=np.array([10, 20, 30, 40]),
    features={"history__item": np.array([2, 3, 4, 1], np.int32), "history__brand": np.array([0, 2, 0, 2], np.int32)},
)


def spec(**changes):
    return TowerSpec.model_validate(tower_spec() | changes)


def test_a_row_has_the_features_and_the_latest_events():
    features = pa.table({"city": pa.array([2, 3, 0], pa.int32()), "tags": pa.array([[], [3], []], pa.list_(pa.int32()))})
    rows = list_user_inputs(features, HISTORY, np.array([0, 3, 0]), np.array([3, 4, 0]), spec(history_length=2))
    assert rows.to_pylist() == [
        {
            "city": city,
            "tags": tags,
            "history/item_rows": items,
            "history/event_times_ms": times,
            "history/history__item": indices,
            "history/history__brand": brands,
        }
        for city, tags, items, times, indices, brands in [
            (2, [], [6, 7], [20, 30], [3, 4], [2, 0]),
            (3, [3], [-1], [40], [1], [2]),
            (0, [], [], [], [], []),
        ]
    ]


def test_towers_without_user_features_or_history():
    rows = list_user_inputs(pa.table({}), HISTORY, np.array([0]), np.array([3]), spec(history_length=0))
    assert rows.to_pylist() == [{"history/item_rows": [], "history/event_times_ms": []}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"history_length": 7}, 7),
        ({"history_length": 0}, 0),
        ({"poolings": [{"kind": "mean", "length": 9}, {"kind": "sequence", "length": 12}]}, 12),
        ({"poolings": [{"kind": "mean", "length": 9}, {"kind": "sequence", "length": 3}]}, 9),
    ],
)
def test_reach_is_that_of_the_pooling_that_reads_most(changes, expected):
    assert history_reach(spec(**changes)) == expected


def test_own_items_are_counted_with_their_last_time():
    history = HistoryCsr(
        users=IdIndex(pa.array(["u"])),
        starts=np.array([0]),
        ends=np.array([4]),
        item_index=np.array([2, 0, -1, 2], np.int32),
        event_time_ms=np.array([10, 20, 30, 40]),
        features={},
    )
    rows = list_own_items(history, np.array([0, 0]), np.array([4, 0]), 3)
    assert [[one.as_py() for one in column] for column in rows.columns] == [[[0, 2], []], [[1, 2], []], [[20, 40], []]]
