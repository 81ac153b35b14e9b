"""feature_config: widths, vocabularies, drops and what fg.json overrides; step_config; values that share a bucket."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.features import EmbeddingDimPolicy, Statistics
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.core.features.buckets import hash_bucket
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS, FEATURE_BINNING
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics.feature_config import (
    decide_feature_config,
    decide_step_config,
    read_step_plan,
)
from dssm_assets.core.statistics.feature_rules import embedding_dim

NO_BINS = FEATURE_BINNING.schema.empty_table()
NO_COUNTS = CATEGORY_VALUE_COUNTS.schema.empty_table()


def category(name: str, **keys: Any) -> dict[str, Any]:
    return {"feature_type": "id_feature", "value_dim": 1, "feature_name": name, "expression": f"item:{name}", **keys}


def number(name: str, **keys: Any) -> dict[str, Any]:
    return {"feature_type": "raw_feature", "feature_name": name, "expression": f"user:{name}", **keys}


def sequence(name: str, **keys: Any) -> dict[str, Any]:
    sub = {"feature_type": "id_feature", "feature_name": name, "expression": f"user:{name}", **keys}
    return {"feature_type": "sequence_feature", "sequence_name": "past", "sequence_length": 9, "features": [sub]}


def counts(**features: dict[int | None, int]) -> pa.Table:
    triples = [(name, value, count) for name, values in features.items() for value, count in values.items()]
    return pa.table([list(column) for column in zip(*triples, strict=True)], schema=CATEGORY_VALUE_COUNTS.schema)


def bins(name: str, boundaries: list[float], count: int = 100, missing: int = 0, distinct: int = 5) -> dict[str, Any]:
    return {"feature": name, "boundaries": boundaries, "count": count, "missing_count": missing, "distinct_count": distinct}


def decide(
    *features: dict[str, Any], binning: list[dict[str, Any]] | None = None, counted: pa.Table = NO_COUNTS,
    exclude: tuple[str, ...] = (), **statistics: Any,
) -> dict[str, dict[str, Any] | str]:  # fmt: skip
    """feature -> its info, or its message if it is dropped."""
    table = pa.Table.from_pylist(binning, schema=FEATURE_BINNING.schema) if binning else NO_BINS
    result = decide_feature_config(
        parse_fg({"features": list(features)}), Statistics(**statistics), table, counted, exclude=exclude
    )
    rows = result.to_pylist()
    assert [row["feature"] for row in rows if row["feature_info"] is None] == [
        row["feature"] for row in rows if "DROP IT" in row["message"]
    ]
    return {row["feature"]: json.loads(row["feature_info"]) if row["feature_info"] else row["message"] for row in rows}


@pytest.mark.parametrize(
    ("distinct", "policy", "expected"),
    [
        (10_000, "EMB_SQRT4_STEP4", 8),  # 10 / 4 = 2.5 -> 2
        (1_296, "EMB_SQRT4_STEP4", 8),  # 6 / 4 = 1.5 -> 2
        (1, "EMB_SQRT4_STEP4", 4),
        (38_416, "EMB_SQRT4_STEP4", 16),  # 14 / 4 = 3.5 -> 4
        (10_000, "EMB_SQRT4_STEP8", 8),
        (20_736, "EMB_SQRT4_STEP8", 16),  # 12 / 8 = 1.5 -> 2
        (10_000, "EMB_LN_STEP4", 8),  # 9.21 / 4 = 2.30 -> 2
        (100_000_000, "EMB_LN_STEP8", 16),  # 18.4 / 8 = 2.3 -> 2
        (0, "EMB_LN_STEP8", 8),
    ],
)
def test_widths_by_hand(distinct: int, policy: str, expected: int) -> None:
    assert embedding_dim(distinct, EmbeddingDimPolicy(policy)) == expected


def test_number_gets_its_bins() -> None:
    assert decide(number("n"), binning=[bins("n", [1, 2.5])]) == {
        "n": {"side": "user", "kind": "numeric", "is_multi": False, "embedding_name": "n", "embedding_dim": 4,
              "num_embeddings": 4, "boundary": [1, 2.5]},
    }  # fmt: skip


def test_category_gets_its_vocabulary() -> None:
    assert decide(category("c"), counted=counts(c={5: 3, 6: 1, None: 2}), min_count=2) == {
        "c": {"side": "item", "kind": "categorical", "is_multi": False, "embedding_name": "c", "embedding_dim": 4,
              "num_embeddings": 3, "vocab_size": 1, "counted_features": ["c"], "min_count": 2},
    }  # fmt: skip


def test_above_max_vocabulary_it_is_hashed() -> None:
    found = decide(category("c"), counted=counts(c={1: 1, 2: 1, 3: 1}), max_vocabulary=2)
    assert isinstance(found["c"], dict)
    assert (found["c"]["hash_bucket_size"], found["c"]["num_embeddings"]) == (15, 16)


def test_features_of_one_embedding_get_one_vocabulary_and_one_width() -> None:
    shared = {"embedding_name": "e"}
    found = decide(category("a", **shared), category("b", **shared), sequence("p", **shared),
                   counted=counts(a={1: 1, 2: 1}, b={2: 1, 3: 1}), min_count=2, embedding_dim={"b": 12})  # fmt: skip
    tables = [
        {key: info[key] for key in ("embedding_dim", "num_embeddings", "vocab_size", "counted_features", "embedding_name")}
        for info in found.values()
        if isinstance(info, dict)
    ]
    assert (
        tables
        == [{"embedding_dim": 12, "num_embeddings": 3, "vocab_size": 1, "counted_features": ["a", "b"], "embedding_name": "e"}]
        * 3
    )
    sub = found["past__p"]
    assert isinstance(sub, dict)
    assert (sub["sequence_name"], sub["sequence_length"], sub["side"], sub["is_multi"]) == ("past", 9, "user", False)


def test_definitions_override_statistics() -> None:
    found = decide(
        number("n", boundaries=[5, 6, 7], embedding_dim=3),
        category("h", hash_bucket_size=10),
        category("v", vocab_list=["x", "y"]),
        category("k", num_buckets=24),
        binning=[bins("n", [1])],
        counted=counts(h={1: 1, 2: 1}, v={1: 1, 2: 1}, k={1: 1, 2: 1}),
        embedding_dim={"n": 32},
    )
    short = {
        name: (info["num_embeddings"], info.get("embedding_dim")) for name, info in found.items() if isinstance(info, dict)
    }
    assert short == {"n": (5, 3), "h": (11, 4), "v": (4, 4), "k": (26, 4)}
    assert isinstance(found["n"], dict) and found["n"]["boundary"] == [5, 6, 7]


def test_drops_with_reasons() -> None:
    found = decide(
        number("n_constant"), number("n_missing"), number("n_rare"), number("n_flag"),
        category("constant"), category("missing"), category("rare"), category("flag"), category("seldom"), category("unwanted"),
        binning=[bins("n_constant", [], distinct=1), bins("n_missing", [], missing=100, distinct=0),
                 bins("n_rare", [2], count=2000, missing=1999), bins("n_flag", [], missing=50, distinct=1)],
        counted=counts(constant={1: 10}, missing={None: 10}, rare={1: 2, 2: 2, None: 9996}, flag={1: 5, None: 5},
                       seldom=dict.fromkeys(range(9), 1) | {10: 1}, unwanted={1: 5, 2: 5}),
        min_count=2, exclude=("unwanted",),
    )  # fmt: skip
    assert {name: message for name, message in found.items() if isinstance(message, str)} == {
        "n_constant": "DROP IT: constant: one value in the window, never missing",
        "n_missing": "DROP IT: it has no value in the window",
        "n_rare": "DROP IT: missing in 1999 of 2000 rows, more than 99.9%",
        "constant": "DROP IT: constant: one value in the window, never missing",
        "missing": "DROP IT: it has no value in the window",
        "rare": "DROP IT: missing in 9996 of 10000 rows, more than 99.9%",
        "seldom": "DROP IT: no value occurs 2 times (min_count)",
        "unwanted": "DROP IT: excluded by the configuration",
    }


def test_feature_missing_in_999_of_1000_rows_is_kept() -> None:
    found = decide(number("n"), binning=[bins("n", [2], count=1000, missing=999)])
    assert isinstance(found["n"], dict)


def test_excluded_feature_still_provides_the_vocabulary_of_the_sequence() -> None:
    found = decide(
        category("item"), sequence("item", embedding_name="item"), counted=counts(item={1: 2, 2: 1}), exclude=("item",)
    )
    assert found["item"] == "DROP IT: excluded by the configuration"
    assert isinstance(found["past__item"], dict) and found["past__item"]["vocab_size"] == 2


def test_sub_feature_of_unknown_vocabulary_is_refused_unless_it_is_hashed_or_counted() -> None:
    with pytest.raises(SchemaError, match="feature past__p: expected a known vocabulary"):
        decide(sequence("p"))
    assert isinstance(decide(sequence("p", hash_bucket_size=8))["past__p"], dict)
    own = decide(sequence("p"), counted=counts(past__p={1: 1, 2: 1}))["past__p"]
    assert isinstance(own, dict) and own["vocab_size"] == 2


def test_all_features_without_statistics_are_named() -> None:
    with pytest.raises(
        SchemaError,
        match=r"feature c: expected its rows in feature_counts[\s\S]*feature n: expected its rows in feature_binning",
    ):
        decide(number("n"), category("c"))


def test_names_and_widths_of_the_configuration_are_checked() -> None:
    two = [category("a", embedding_name="e"), category("b", embedding_name="e")]
    with pytest.raises(
        ConfigError, match=r"features.exclude, y[\s\S]*embedding_dim of embedding e: expected one value"
    ) as caught:
        decide(*two, counted=counts(a={1: 1}, b={1: 1}), embedding_dim={"x": 4, "a": 4, "b": 8}, exclude=("y",))
    assert len(caught.value.faults) == 3


def test_order_of_the_counts_has_no_effect() -> None:
    spec = parse_fg({"features": [category("a"), category("b")]})
    table = counts(b={3: 1, 1: 9}, a={2: 4, None: 1, 7: 4})
    first = decide_feature_config(spec, Statistics(), NO_BINS, table)
    assert decide_feature_config(spec, Statistics(), NO_BINS, table.take([4, 2, 0, 3, 1])).equals(first)


def test_steps_by_hand() -> None:
    # 1001 / 200 = 5.005 -> 6 batches an epoch, 18 in 3; .1 of them, 1.8 -> 2, are the warm-up.
    table = decide_step_config(1001, Training(epochs=3, batch_size=200, warmup_frac=0.1))
    assert [(row["feature"], row["feature_info"]) for row in table.to_pylist()] == [
        ("__NUM_STEPS__", '{"num_steps": 18}'),
        ("__DECAY_STEPS__", '{"decay_steps": 16}'),
    ]
    assert read_step_plan({row["feature"]: row["feature_info"] for row in table.to_pylist()}) == StepPlan(18, 16)


def test_one_feature_may_have_its_own_rules() -> None:
    found = decide(
        category("h"), category("m"), category("k"), category("w"),
        counted=counts(h={1: 1, 2: 1}, m={1: 3, 2: 1}, k={1: 5}, w={1: 1, 2: 1}),
        features={"h": {"hash_bucket_size": 50}, "m": {"min_count": 2}, "k": {"keep": True},
                  "w": {"max_vocabulary": 1}},
    )  # fmt: skip
    short = {name: info["num_embeddings"] for name, info in found.items() if isinstance(info, dict)}
    # 50 buckets and missing; one value that occurs twice; one value, kept though constant; 2 values * 5 and missing.
    assert short == {"h": 51, "m": 3, "k": 3, "w": 11}


def test_own_rules_name_features_and_agree_within_an_embedding() -> None:
    two = [category("a", embedding_name="e"), category("b", embedding_name="e")]
    own = {"a": {"min_count": 2}, "b": {"min_count": 3}, "z": {"keep": True}}
    with pytest.raises(
        ConfigError, match=r"min_count of embedding e: expected one value, got a: 2, b: 3[\s\S]*statistics.features, key z"
    ):
        decide(*two, counted=counts(a={1: 1}, b={1: 1}), features=own)


def test_features_that_towers_cannot_read_are_dropped_with_a_reason() -> None:
    sequence = {"feature_type": "sequence_feature", "sequence_name": "past", "features": [
        {"feature_type": "raw_feature", "feature_name": "n", "expression": "user:n"},
        {"feature_type": "raw_feature", "feature_name": "b", "expression": "user:b", "boundaries": [1, 2]},
        {"feature_type": "id_feature", "feature_name": "m", "expression": "user:m", "value_dim": 0, "hash_bucket_size": 9},
    ]}  # fmt: skip
    found = decide(sequence)
    assert found["past__n"] == "DROP IT: numbers of a sequence are not counted: give them boundaries"
    assert found["past__m"] == "DROP IT: each element of the sequence has several values, but towers read one value per element"
    assert isinstance(found["past__b"], dict) and found["past__b"]["num_embeddings"] == 4


def test_messages_report_hash_collisions() -> None:
    # Hashes 1, 11 and 2 in 10 buckets: 1 and 11 share one, 2 of 3 values.
    spec = parse_fg({"features": [category("c", hash_bucket_size=10)]})
    counted = counts(c={1: 1, 11: 1, 2: 1})
    assert (
        "66.67% of them share a bucket"
        in decide_feature_config(spec, Statistics(), NO_BINS, counted).column("message")[0].as_py()
    )


def test_signed_hashes_have_the_buckets_of_the_unsigned() -> None:
    # 2^64 - 1 and 5 are both 0 modulo 5; as an integer of its own, -1 would be 4 with 9.
    assert hash_bucket(np.array([-1, 5, 9]), 5).tolist() == [0, 0, 4]
