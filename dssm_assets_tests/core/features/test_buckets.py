"""Buckets from definitions alone: the reference's numbers, reserved buckets, edges, and the index a model sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.features import HashFunction, Statistics
from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.buckets import NO_BUCKET, Vocabulary, bin_of, integers_below
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.feature_config import decide_feature_config
from dssm_assets.core.statistics.value_counts import merge_value_counts
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers

WORDS = pa.array(["abc\x1defg", "", "hij"])


def generator(**keys: Any) -> FeatureGenerator:
    return FeatureGenerator.from_fg_json(
        {"features": [{"feature_type": "id_feature", "feature_name": "f", "expression": "user:x", **keys}]}
    )


def buckets(column: pa.Array, **keys: Any) -> list[object]:
    return list(generator(**keys).bucketize(pa.table({"x": column})).column("f").to_pylist())


@pytest.mark.parametrize(
    ("default", "column", "expected"),
    [
        ("", ["abc\x1defg", None, "hij"], [[33, 44], [], [66]]),
        ("xyz", ["abc\x1defg", None, "hij"], [[33, 44], [13], [66]]),
        ("xyz", [["abc", "efg"], None, ["hij"]], [[33, 44], [13], [66]]),
        ("", [1, 2, None, 3], [[95], [70], [], [13]]),
        ("4", [1, 2, None, 3], [[95], [70], [56], [13]]),
    ],
)
def test_hash_buckets_of_the_reference(default: str, column: list[Any], expected: list[list[int]]) -> None:
    assert buckets(pa.array(column), hash_bucket_size=100, default_value=default) == expected


def test_hash_buckets_of_tensorflow() -> None:
    raw = {"features": [{"feature_type": "id_feature", "feature_name": "f", "expression": "user:x", "hash_bucket_size": 100}]}
    farm = FeatureGenerator.from_fg_json(raw, hash_function=HashFunction.FARM)
    assert [farm.bucketize_one({"x": x})["f"] for x in (1, "2", 3.0)] == [[49], [59], [21]]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"vocab_list": ["abc", "efg"]}, [[2, 3], [], [1]]),
        ({"vocab_list": ["abc", "efg"], "default_value": "xyz"}, [[2, 3], [0], [1]]),
        ({"vocab_list": ["abc", "efg"], "default_value": "efg"}, [[2, 3], [3], [1]]),
        ({"vocab_list": ["xyz", "abc", "efg"], "default_bucketize_value": 0}, [[1, 2], [], [0]]),
        ({"vocab_list": ["xyz", "abc", "efg"], "default_bucketize_value": 0, "default_value": "xyz"}, [[1, 2], [0], [0]]),
        ({"vocab_list": ["", "<OOV>", "abc", "efg"], "default_bucketize_value": 1}, [[2, 3], [], [1]]),
        ({"vocab_dict": {"abc": 2, "efg": 2}}, [[2, 2], [], [1]]),
        ({"vocab_dict": {"abc": 2, "efg": 2}, "default_value": "xyz"}, [[2, 2], [0], [1]]),
        ({"vocab_dict": {"abc": 1, "efg": 1}, "default_bucketize_value": 0}, [[1, 1], [], [0]]),
        (
            {"vocab_dict": {"xyz": 0, "abc": 1, "efg": 1}, "default_bucketize_value": 0, "default_value": "xyz"},
            [[1, 1], [0], [0]],
        ),
    ],
)
def test_vocabularies_of_the_reference(keys: dict[str, Any], expected: list[list[int]]) -> None:
    assert buckets(WORDS, **keys) == expected


def test_integers_are_their_own_buckets() -> None:
    column = pa.array(["0\x1d1", "", "2", "100\x1d-1\x1d07"])
    assert buckets(column, num_buckets=100) == [[0, 1], [], [2], []]
    assert buckets(column, num_buckets=100, default_value="3") == [[0, 1], [3], [2], []]
    assert buckets(column, num_buckets=100, default_bucketize_value=9) == [[0, 1], [], [2], [9, 9, 9]]
    assert list(integers_below(3, None, HashFunction.MURMUR)(np.array([0, 1], np.int64))) == [NO_BUCKET, NO_BUCKET]


def test_value_that_equals_a_boundary_opens_its_bin() -> None:
    numbers = np.array([0.0, 0.7, 0.69999, 1.0, 2.0, 1e30, -1e30], np.float32)
    assert list(bin_of([0.0, 0.7, 1.0, 2.0], numbers)) == [1, 2, 1, 3, 4, 4, 0]
    fg = {"features": [{"feature_type": "raw_feature", "feature_name": "n", "expression": "user:x", "boundaries": [0, 1, 2]}]}
    found = FeatureGenerator.from_fg_json(fg).bucketize(pa.table({"x": pa.array([-1, 0, 1, 2, 3, None])}))
    assert found.column("n").to_pylist() == [[0], [1], [2], [3], [3], [1]]  # The default of a number is 0.


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"hash_bucket_size": 100}, [34, 45, 0, 67]),
        ({"vocab_list": ["abc", "efg"]}, [2, 3, 0, 1]),
        ({"vocab_list": ["abc", "efg"], "default_value": "xyz"}, [2, 3, 0, 1]),
        ({"vocab_list": ["abc", "efg"], "default_bucketize_value": 1}, [1, 2, 0, 2]),
        ({"vocab_dict": {"abc": 2, "efg": 5}}, [2, 5, 0, 1]),
        ({"vocab_dict": {"abc": 0, "efg": 5}, "default_bucketize_value": 7}, [1, 6, 0, 8]),
        ({"num_buckets": 3}, [1, 1, 0, 1]),
    ],
)
def test_embedding_indices_reserve_0_for_missing_values(keys: dict[str, Any], expected: list[int]) -> None:
    made = generator(value_dim=1, **keys)
    encoded = made.encode(pa.table({"x": ["abc", "efg", None, "hij"]}))
    counted = merge_value_counts([count_categories(encoded, made.spec.features)])
    binned = bin_features(merge_value_counts([count_numbers(encoded, made.spec.features)]), 4)
    bucketizer = Bucketizer(decide_feature_config(made.spec, Statistics(), binned, counted), counted)
    assert bucketizer.bucketize("f", encoded.column("f")).to_pylist() == expected
    assert max(expected) < bucketizer.features[0].num_embeddings


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"vocab_list": ["a"], "vocab_dict": {"a": 2}}, "exclude each other"),
        ({"vocab_dict": {"a": 1}}, "start at 2"),
        ({"vocab_list": ["a", ""]}, "repeats a value"),
        ({"hash_bucket_size": 3, "default_bucketize_value": 1}, "needs num_buckets"),
        ({"vocab_file": "words.txt", "default_bucketize_value": 0}, "cannot be read"),
        ({"vocab_file": "words.txt"}, "needs default_bucketize_value"),
    ],
)
def test_contradicting_vocabulary_keys_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(FeatureSpecError, match=words):
        generator(**keys)


@pytest.mark.parametrize("distinct", [1, 3, 5_000])
def test_lookup_of_many_values_equals_single_lookups(distinct: int) -> None:
    vocabulary = Vocabulary.from_hashes(np.array([7, -3, 2**63 - 1]), np.array([2, 5, 9]), -1)
    hashes = np.resize(np.array([*range(distinct - 1), -(2**63)], np.int64), 5_000)
    expected = [{7: 2, -3: 5, 2**63 - 1: 9}.get(value, -1) for value in hashes.tolist()]
    assert vocabulary(hashes).tolist() == expected
    assert [vocabulary(hashes[place : place + 1])[0] for place in range(20)] == expected[:20]
