"""The bucketizer: indices by hand for each rule, shapes, and the bounds every index keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.features import HashFunction, Statistics
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS, FEATURE_BINNING
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics.bucketizer import Bucketizer, match_rows
from dssm_assets.core.statistics.feature_config import decide_feature_config

ID = {"feature_type": "id_feature", "value_dim": 1}
FG: dict[str, Any] = {
    "features": [
        {"feature_type": "raw_feature", "feature_name": "n", "expression": "user:n"},
        {**ID, "feature_name": "v", "expression": "item:v", "value_dim": 0},
        {**ID, "feature_name": "h", "expression": "user:h", "hash_bucket_size": 100},
        {**ID, "feature_name": "l", "expression": "user:l", "vocab_list": ["b", "a"]},
        {**ID, "feature_name": "k", "expression": "context:k", "num_buckets": 5},
        {**ID, "feature_name": "dull", "expression": "context:dull"},
        {"feature_type": "sequence_feature", "sequence_name": "s",
         "features": [{**ID, "feature_name": "v", "expression": "user:vs", "embedding_name": "v"}]},
    ]
}  # fmt: skip
SPEC = parse_fg(FG)
BINS = pa.Table.from_pylist(
    [{"feature": "n", "boundaries": [1.0, 2.0], "count": 9, "missing_count": 0, "distinct_count": 3}],
    schema=FEATURE_BINNING.schema,
)
COUNTS = pa.table(
    [["v"] * 5 + ["h", "h", "l", "l", "k", "k", "dull"], [30, -7, 4, 8, None, 1, 2, 1, 2, 1, 2, 1], [9, 5, 5, 1, 3, *[1] * 7]],
    schema=CATEGORY_VALUE_COUNTS.schema,
)
CONFIG = decide_feature_config(SPEC, Statistics(min_count=1), BINS, COUNTS)
BUCKETIZER = Bucketizer(CONFIG, COUNTS)


def test_features_in_order_without_the_dropped_one() -> None:
    found = [(f.name, f.side, f.is_multi, f.sequence_name, f.embedding_name, f.num_embeddings) for f in BUCKETIZER.features]
    assert found == [
        ("n", "user", False, None, "n", 4),
        ("v", "item", True, None, "v", 6),
        ("h", "user", False, None, "h", 101),
        ("l", "user", False, None, "l", 4),
        ("k", "context", False, None, "k", 7),
        ("s__v", "user", False, "s", "v", 6),
    ]


def test_number_on_a_boundary_is_in_the_bin_that_starts_there() -> None:
    column = pa.array([0.5, 1, 1.5, 2, 3, None, float("nan"), -1e38], pa.float32())
    assert BUCKETIZER.bucketize("n", column).to_pylist() == [1, 2, 2, 3, 3, 0, 0, 1]


def test_vocabulary_by_frequency_then_hash() -> None:
    column = pa.array([30, -7, 4, 8, 5, None, 2**63 - 1, -(2**63), 0], pa.int64())
    assert BUCKETIZER.bucketize("s__v", column).to_pylist() == [2, 3, 4, 5, 1, 0, 1, 1, 1]


def test_hash_above_the_whole_vocabulary_is_out_of_it() -> None:
    counts = pa.table(
        [["v", "v", *"hhllkk"], [-5, -9, 1, 2, 1, 2, 1, 2], [2, 1, *[1] * 6]], schema=CATEGORY_VALUE_COUNTS.schema
    )
    counts = pa.concat_tables([counts, pa.table([["dull"], [1], [1]], schema=CATEGORY_VALUE_COUNTS.schema)])
    bucketizer = Bucketizer(decide_feature_config(SPEC, Statistics(), BINS, counts), counts)
    assert bucketizer.bucketize("v", pa.array([0, 1, -5, -9, -7])).to_pylist() == [1, 1, 2, 3, 1]


def test_shape_follows_the_column() -> None:
    column = pa.chunked_array([pa.array([[30, None], None], pa.list_(pa.int64())), pa.array([[], [8]], pa.list_(pa.int64()))])
    found = BUCKETIZER.bucketize("v", column)
    assert found.type == pa.list_(pa.int32())
    assert found.to_pylist() == [[2, 0], [], [], [5]]
    assert BUCKETIZER.bucketize("v", column.combine_chunks()[2:]).to_pylist() == [[], [5]]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.sampled_from([30, -7, 4, 8])), max_size=20))
def test_every_index_is_within_the_table_and_only_missing_is_zero(hashes: list[int | None]) -> None:
    column = pa.array(hashes, pa.int64())
    for feature in BUCKETIZER.features:
        if feature.kind == "categorical":
            indices = BUCKETIZER.bucketize(feature.name, column).to_pylist()
            assert all((index == 0) == (value is None) for index, value in zip(indices, hashes, strict=True))
            assert max(indices, default=0) < feature.num_embeddings


def test_item_and_its_sequence_element_get_the_same_index() -> None:
    generator = FeatureGenerator(SPEC)
    items = generator.encode(pa.table({"v": [["x"], ["y"], ["z"]]}), side="item")
    past = generator.encode(pa.table({"vs": [["x", "y", "z"]]}), side="sequence")
    hashes = [row[0] for row in items.column("v").to_pylist()]
    counts = pa.table(
        [[*["v"] * 2, "dull", *"hhllkk"], [hashes[1], hashes[0], 1, 1, 2, 1, 2, 1, 2], [3, 2, *[1] * 7]],
        schema=CATEGORY_VALUE_COUNTS.schema,
    )
    bucketizer = Bucketizer(decide_feature_config(SPEC, Statistics(), BINS, counts), counts)
    assert bucketizer.bucketize("v", items.column("v")).to_pylist() == [[3], [2], [1]]
    assert bucketizer.bucketize("s__v", past.column("s__v")).to_pylist() == [[3, 2, 1]]


def test_counts_of_other_rules_are_refused() -> None:
    with pytest.raises(SchemaError, match="feature v, vocabulary: expected 4 values, got 3 values"):
        Bucketizer(CONFIG, COUNTS.slice(1))
    with pytest.raises(SchemaError, match="feature v, vocabulary: expected 4 values, got 0 values"):
        Bucketizer(CONFIG, COUNTS.slice(5))


def test_column_without_a_type_is_missing() -> None:
    assert BUCKETIZER.bucketize("h", pa.nulls(2)).to_pylist() == [0, 0]


def test_boundaries_survive_the_configuration_exactly() -> None:
    edge = float(np.float32(0.1))
    bins = BINS.set_column(1, FEATURE_BINNING.schema.field("boundaries"), pa.array([[edge]], pa.list_(pa.float64())))
    bucketizer = Bucketizer(decide_feature_config(SPEC, Statistics(), bins, COUNTS), COUNTS)
    below = np.nextafter(np.float32(0.1), np.float32(0), dtype=np.float32)
    assert bucketizer.bucketize("n", pa.array([0.1, below], pa.float32())).to_pylist() == [2, 1]


def _rows(
    boundaries: list[float],
    values: dict[int, int],
    buckets: int = 100,
    words: tuple[str, ...] = ("b", "a"),
    function: HashFunction = HashFunction.MURMUR,
) -> Bucketizer:
    """Returns a day on which a number has these bins and an id these values by how often they came."""
    fg: dict[str, Any] = {
        "features": [
            {"feature_type": "raw_feature", "feature_name": "n", "expression": "user:n"},
            {**ID, "feature_name": "v", "expression": "item:v"},
            {**ID, "feature_name": "h", "expression": "user:h", "hash_bucket_size": buckets},
            {**ID, "feature_name": "l", "expression": "user:l", "vocab_list": list(words)},
        ]
    }
    bins = [{"feature": "n", "boundaries": boundaries, "count": 9, "missing_count": 0, "distinct_count": 3}]
    names = ["v"] * len(values) + ["h", "h", "l", "l"]
    hashes, counts = [*values, 1, 2, 1, 2], [*values.values(), 1, 1, 1, 1]
    table = pa.table([names, hashes, counts], schema=CATEGORY_VALUE_COUNTS.schema)
    binning = pa.Table.from_pylist(bins, schema=FEATURE_BINNING.schema)
    config = decide_feature_config(parse_fg(fg), Statistics(min_count=1), binning, table, hash_function=function)
    return Bucketizer(config, table)


def _pairs(today: Bucketizer, earlier: Bucketizer, embedding: str) -> dict[int, int]:
    found = match_rows(today, earlier)[embedding]
    assert len(np.unique(found.today)) == len(found.today)
    return dict(zip(found.today.tolist(), found.earlier.tolist(), strict=True))


def test_matched_rows_of_a_vocabulary_have_the_same_value() -> None:
    # Today 30, -7, 8 at rows 2, 3, 4; earlier 8, 5, 30 at rows 2, 3, 4. -7 is new, 5 is gone, 1 is out of vocabulary.
    today, earlier = _rows([1.0, 2.0], {30: 9, -7: 5, 8: 2}), _rows([1.0, 2.0], {8: 7, 5: 6, 30: 4})
    assert _pairs(today, earlier, "v") == {1: 1, 2: 4, 4: 2}


def test_matched_row_of_a_bin_is_that_of_its_middle() -> None:
    # Today below 1, [1, 3), [3, 9), from 9 on: middles below 1, 2, 6, 9. Earlier below 2, [2, 5), from 5 on.
    today, earlier = _rows([1.0, 3.0, 9.0], {1: 2}), _rows([2.0, 5.0], {1: 2})
    assert _pairs(today, earlier, "n") == {1: 1, 2: 2, 3: 3, 4: 3}


def test_rows_of_another_fixed_rule_do_not_match() -> None:
    same, other = _rows([1.0], {1: 2}), _rows([1.0], {1: 2}, buckets=50, words=("a", "b"))
    assert _pairs(same, other, "h") == {}
    assert _pairs(same, other, "l") == {}


def test_rows_of_another_hash_do_not_match() -> None:
    murmur, farm = (_rows([1.0], {30: 9, 8: 2}, function=function) for function in HashFunction)
    for embedding in ("v", "h", "l"):
        assert _pairs(murmur, farm, embedding) == _pairs(farm, murmur, embedding) == {}, embedding
        assert len(_pairs(farm, farm, embedding)) == len(_pairs(murmur, murmur, embedding)) > 0, embedding
    assert _pairs(murmur, farm, "n") == {1: 1, 2: 2}


def test_column_of_another_kind_is_refused() -> None:
    with pytest.raises(SchemaError, match="feature n: expected float32 numbers, got int64"):
        BUCKETIZER.bucketize("n", pa.array([1]))
    with pytest.raises(SchemaError, match="feature h: expected int64 hashes, got string"):
        BUCKETIZER.bucketize("h", pa.array(["a"]))


def test_default_hash_is_not_written() -> None:
    def hashes(function: HashFunction) -> list[HashFunction | None]:
        infos = _rows([1.0], {30: 9, 8: 2}, function=function).feature_by_embedding
        return [infos[name].hash_function for name in ("n", "v", "h", "l")]

    assert hashes(HashFunction.MURMUR) == [None] * 4
    assert hashes(HashFunction.FARM) == [None, *[HashFunction.FARM] * 3]


def test_neighbouring_boundaries_match() -> None:
    # Between 1 and 1 + 2^-23 lies no float32: the middle rounds to 1; between 1 + 2^-23 and 1 + 2^-22 it rounds to the latter.
    edges = [1.0, 1 + 2**-23, 1 + 2**-22, 1 + 3 * 2**-23]
    day = _rows(edges, {1: 2})
    assert _pairs(day, day, "n") == {row: row for row in range(1, 6)}


@pytest.mark.parametrize("embedding", ["n", "v", "h", "l"])
def test_day_matches_all_its_own_rows(embedding: str) -> None:
    day = _rows([0.1, 0.7, 5.0], {3: 9, 1: 5, 8: 5})
    info = day.feature_by_embedding[embedding]
    assert _pairs(day, day, embedding) == {row: row for row in range(1, info.num_embeddings)}
