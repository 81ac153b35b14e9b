"""match_feature: hits, wildcards, their order, and both forms."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.features.buckets import bucket_rule
from dssm_assets.core.features.operators.match_feature import MatchFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases

# The reference's example: two hits of nothing, an empty map, a missing one.
MAP = pa.array(["ca^ba:1,bb:2|cb^ba:3,bb:4"] * 3 + ["", None])
PKEYS = pa.array(["ca", "ca", "", "ca", None])
SKEYS = pa.array(["ba", "", "", "ba", None])
MAP_OF_MAPS = pa.map_(pa.string(), pa.map_(pa.string(), pa.float64()))
VARIANTS: list[dict[str, Any]] = [
    *(
        {"combiner": combiner, "default_value": default}
        for combiner in ("sum", "mean", "min", "max", "count")
        for default in ("", "7")
    ),
    {"combiner": ""},
    {"need_discrete": True},
    {"need_discrete": True, "value_dim": 1, "default_value": ""},
    {"show_pkey": True},
    {"show_skey": True, "default_value": ""},
    {"show_pkey": True, "show_skey": True},
    {"hash_bucket_size": 9},
    {"normalizer": "method=log10"},
]
WILDCARDS: list[dict[str, str]] = [{}, {"pkey": "ALL"}, {"skey": "const:ALL"}, {"pkey": "ALL", "skey": "ALL"}]

keys = st.sampled_from(["a", "b", "c", "ALL"])
requested_rows = st.lists(keys, max_size=3)
maps = st.lists(st.tuples(keys, st.lists(st.tuples(keys, st.integers(-9, 9)), max_size=3)), max_size=3)
nasty = st.one_of(
    cases.texts, st.sampled_from(["a^a:1", "a^a:1,b:x|b^a:2", "a^a:1|a^a:2", "|", "^", "a^", "ALL^ALL:3", "a^b^a:1"])
)
nasty_keys = st.one_of(cases.texts, st.sampled_from(["a", "b", "a\x1db", "ALL", "ALL\x1da\x1dALL"]))


def feature(**options: object) -> MatchFeature:
    definition = {"feature_name": "f", "nested_map": "user:m", "pkey": "user:p", "skey": "user:s"}
    return MatchFeature.model_validate({**definition, **options})


def inputs_of(operator: MatchFeature, *columns: pa.Array) -> list[pa.Array]:
    """Returns the columns m, p, s that the operator reads."""
    by_text = dict(zip(("user:m", "user:p", "user:s"), columns, strict=True))
    return [by_text[text] for text in operator.expression_texts]


def values(entries: pa.Array, pkeys: pa.Array, skeys: pa.Array, **options: object) -> list[Any]:
    operator = feature(**options)
    return list(operator.compute(inputs_of(operator, entries, pkeys, skeys)).to_pylist())


def buckets(**options: object) -> list[Any]:
    operator = feature(**options)
    rule = bucket_rule(operator, HashFunction.MURMUR)
    assert rule is not None
    found = rule(operator.compute([MAP, PKEYS, SKEYS]))
    return list(found.to_pylist())


@given(st.lists(st.tuples(nasty, nasty_keys, nasty_keys), max_size=8), st.sampled_from(VARIANTS), st.sampled_from(WILDCARDS))
def test_batch_equals_its_rows(
    rows: list[tuple[str | None, ...]], options: dict[str, object], wildcards: dict[str, str]
) -> None:
    operator = feature(**options, **wildcards)
    inputs = inputs_of(operator, *(pa.array([row[i] for row in rows], pa.string()) for i in range(3)))
    check_rows(operator, *inputs)


def hits_of(row: tuple[Any, Any, Any], wildcards: dict[str, str]) -> list[str]:
    """Returns "pkey_skey_value" of the hits of one row, by the definition."""
    entries, pkeys, skeys = row
    is_multihit = bool(wildcards)
    found = []
    for pkey in ["ALL"] if "pkey" in wildcards else pkeys:
        for skey in ["ALL"] if "skey" in wildcards else skeys:
            for outer, inner in entries:
                if outer == pkey or (is_multihit and pkey == "ALL"):
                    found += [f"{outer}_{k}_{v}" for k, v in inner if k == skey or (is_multihit and skey == "ALL")]
    return found


@pytest.mark.parametrize("wildcards", WILDCARDS)
@pytest.mark.parametrize("shape", ["text", "list", "map"])
@given(st.lists(st.tuples(maps, requested_rows, requested_rows), max_size=6))
def test_hits_equal_a_plain_loop(shape: str, wildcards: dict[str, str], rows: list[tuple[Any, Any, Any]]) -> None:
    texts = [[f"{pkey}^" + ",".join(f"{k}:{v}" for k, v in inner) for pkey, inner in row[0]] for row in rows]
    entries = {
        "text": lambda: pa.array(["|".join(row) for row in texts], pa.string()),
        "list": lambda: pa.array(texts, pa.list_(pa.string())),
        "map": lambda: pa.array([row[0] for row in rows], MAP_OF_MAPS),
    }[shape]()
    pkeys, skeys = (pa.array([row[i] for row in rows], pa.list_(pa.string())) for i in (1, 2))
    found = values(entries, pkeys, skeys, show_pkey=True, show_skey=True, default_value="", **wildcards)
    assert found == [hits_of(row, wildcards) for row in rows]


def test_reference_example_as_a_number() -> None:
    assert values(MAP, PKEYS, SKEYS) == [1, 0, 0, 0, 0]
    assert values(MAP, PKEYS, SKEYS, default_value="") == [1, None, None, None, None]


def test_reference_example_in_bins_and_in_num_buckets() -> None:
    assert buckets(boundaries=[-0.5, 0.5, 1.5, 2.5]) == [2, 1, 1, 1, 1]
    assert buckets(boundaries=[-0.5, 0.5, 1.5, 2.5], default_value="") == [2, None, None, None, None]
    assert buckets(num_buckets=10) == [[1], [0], [0], [0], [0]]
    assert buckets(num_buckets=10, default_value="") == [[1], [], [], [], []]


def test_wildcard_of_the_definition_is_not_an_input() -> None:
    assert feature(pkey="ALL").expression_texts == ("user:m", "user:s")
    assert feature(skey="const:ALL").expression_texts == ("user:m", "user:p")
    assert feature(pkey="ALL", skey="ALL").expression_texts == ("user:m",)
    assert values(MAP, PKEYS, SKEYS, pkey="ALL") == [1 + 3, 0, 0, 0, 0]
    assert values(MAP, PKEYS, SKEYS, skey="ALL") == [1 + 2, 1 + 2, 0, 0, 0]
    assert values(MAP, PKEYS, SKEYS, pkey="ALL", skey="const:ALL") == [10, 10, 10, 0, 0]


def test_value_that_is_not_a_number_is_ignored_only_in_numbers() -> None:
    entries = pa.array(["a^x:1,x:red,x:,x"])
    assert values(entries, pa.array(["a"]), pa.array(["x"]), combiner="count") == [1]
    assert values(entries, pa.array(["a"]), pa.array(["x"]), need_discrete=True) == [["1", "red"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"need_discrete": True, "combiner": "max"}, "combiner max has no effect"),
        ({"show_pkey": True, "normalizer": "method=log10"}, "normalizer have no effect"),
        ({"hash_bucket_size": 9, "boundaries": [1.0]}, "boundaries have no effect"),
        ({"value_dim": 0}, "value_dim 0 needs need_discrete"),
        ({"value_dim": 2}, "less than or equal to 1"),
        ({"default_value": "x"}, "finite number"),
        ({"combiner": "median"}, "combiner"),
        ({"pkey": "all"}, "side:name"),
        ({"skey": "ALL:x"}, "unknown side"),
        ({"nested_map": "ALL"}, "side:name"),
        ({"outer_separator": ";"}, "Extra inputs"),
    ],
)
def test_keys_without_effect_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        feature(**options)
