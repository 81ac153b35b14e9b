"""Which rows stand for the same values on two days, by hand for each kind of rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.features.binning import BINNING
from dssm_assets.core.features.carried_rows import FeatureRows, carried_rows
from dssm_assets.core.features.feature_config import feature_config
from dssm_assets.core.features.hash_function import HashFunction
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.features.value_counts import CATEGORY_COUNTS
from dssm_assets.core.statistics_config import Statistics

ID = {"feature_type": "id_feature", "value_dim": 1}
STATISTICS = Statistics(min_count=1)


def _rows(
    boundaries: list[float],
    values: dict[int, int],
    buckets: int = 100,
    words: tuple[str, ...] = ("b", "a"),
    function: HashFunction = HashFunction.MURMUR,
    statistics: Statistics = STATISTICS,
) -> FeatureRows:
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
    table = pa.table([names, hashes, counts], schema=CATEGORY_COUNTS)
    binning = pa.Table.from_pylist(bins, schema=BINNING)
    config = feature_config(parse_fg(fg), statistics, binning, table, hash_function=function)
    return FeatureRows(config, table)


def _pairs(today: FeatureRows, earlier: FeatureRows, embedding: str) -> dict[int, int]:
    found = carried_rows(today, earlier)[embedding]
    assert len(np.unique(found.today)) == len(found.today)
    return dict(zip(found.today.tolist(), found.earlier.tolist(), strict=True))


def test_a_value_is_where_the_earlier_vocabulary_had_it() -> None:
    # Today 30, -7, 8 at rows 2, 3, 4; earlier 8, 5, 30 at rows 2, 3, 4. -7 is new, 5 is gone, 1 is out of vocabulary.
    today, earlier = _rows([1.0, 2.0], {30: 9, -7: 5, 8: 2}), _rows([1.0, 2.0], {8: 7, 5: 6, 30: 4})
    assert _pairs(today, earlier, "v") == {1: 1, 2: 4, 4: 2}


def test_a_bin_is_where_its_middle_was() -> None:
    # Today below 1, [1, 3), [3, 9), from 9 on: middles below 1, 2, 6, 9. Earlier below 2, [2, 5), from 5 on.
    today, earlier = _rows([1.0, 3.0, 9.0], {1: 2}), _rows([2.0, 5.0], {1: 2})
    assert _pairs(today, earlier, "n") == {1: 1, 2: 2, 3: 3, 4: 3}


def test_a_fixed_rule_is_carried_whole_or_not_at_all() -> None:
    same, other = _rows([1.0], {1: 2}), _rows([1.0], {1: 2}, buckets=50, words=("a", "b"))
    assert _pairs(same, same, "h") == {row: row for row in range(1, 101)}
    assert _pairs(same, same, "l") == {1: 1, 2: 2, 3: 3}
    assert _pairs(same, other, "h") == {}
    assert _pairs(same, other, "l") == {}


def test_rows_of_another_hash_are_not_carried() -> None:
    murmur, farm = (_rows([1.0], {30: 9, 8: 2}, function=function) for function in HashFunction)
    for embedding in ("v", "h", "l"):
        assert _pairs(murmur, farm, embedding) == _pairs(farm, murmur, embedding) == {}, embedding
        assert len(_pairs(farm, farm, embedding)) == len(_pairs(murmur, murmur, embedding)) > 0, embedding
    assert _pairs(murmur, farm, "n") == {1: 1, 2: 2}


def test_rows_of_another_hash_are_not_carried_where_statistics_ask_for_buckets() -> None:
    hashed = Statistics(min_count=1, max_vocabulary=1)
    murmur, farm = (_rows([1.0], {30: 9, 8: 2}, function=function, statistics=hashed) for function in HashFunction)
    assert murmur.of_embedding["v"][1].hash_bucket_size is not None
    assert _pairs(murmur, farm, "v") == {}
    assert _pairs(farm, farm, "v") == {row: row for row in range(1, murmur.of_embedding["v"][1].num_embeddings)}


def test_the_default_hash_is_not_written() -> None:
    def hashes(function: HashFunction) -> list[HashFunction | None]:
        infos = _rows([1.0], {30: 9, 8: 2}, function=function).of_embedding
        return [infos[name][1].hash_function for name in ("n", "v", "h", "l")]

    assert hashes(HashFunction.MURMUR) == [None] * 4
    assert hashes(HashFunction.FARM) == [None, *[HashFunction.FARM] * 3]


def test_neighbouring_boundaries_are_carried() -> None:
    # Between 1 and 1 + 2^-23 lies no float32: the middle rounds to 1; between 1 + 2^-23 and 1 + 2^-22 it rounds to the latter.
    edges = [1.0, 1 + 2**-23, 1 + 2**-22, 1 + 3 * 2**-23]
    day = _rows(edges, {1: 2})
    assert _pairs(day, day, "n") == {row: row for row in range(1, 6)}


@pytest.mark.parametrize("embedding", ["n", "v", "h", "l"])
def test_a_day_carries_all_its_rows_to_itself(embedding: str) -> None:
    day = _rows([0.1, 0.7, 5.0], {3: 9, 1: 5, 8: 5})
    info = day.of_embedding[embedding][1]
    assert _pairs(day, day, embedding) == {row: row for row in range(1, info.num_embeddings)}
