"""fg.json: resolved features, what is written back, and that one error has every fault."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.spec import FgSpec, parse_fg

ID = {"feature_type": "id_feature", "value_dim": 1}
RAW = {"feature_type": "raw_feature"}
FG: dict[str, Any] = {
    "features": [
        {**ID, "feature_name": "item", "expression": "item:item_id", "embedding_dim": 16},
        {**RAW, "feature_name": "age", "expression": "user:age", "boundaries": [18, 30.5], "default_value": 0},
        {**ID, "feature_name": "tags", "expression": "user:tags", "value_dim": 0, "vocab_list": ["a", "b"]},
        {"feature_type": "lookup_feature", "feature_name": "liked", "map": "user:likes", "key": "const:x", "combiner": "max"},
        {**ID, "feature_name": "liked_bin", "expression": "feature:liked"},
        {**ID, "feature_name": "hour", "expression": "context:hour", "hash_bucket_size": 50},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "past",
            "sequence_length": 20,
            "sequence_delim": ";",
            "sequence_pk": "user:item_ids",
            "features": [{**ID, "feature_name": "item", "expression": "user:item_ids", "embedding_name": "item"}],
        },
    ],
    "reserves": ["request_id"],
}


def spec(*features: dict[str, Any]) -> FgSpec:
    return parse_fg({"features": list(features)})


def test_long_chain_of_features_is_read_once_per_feature() -> None:
    """Each feature reads the two before it, so 2 ** 200 paths lead to the column."""
    combo, names = {"feature_type": "combo_feature"}, ["user:a", *(f"feature:f{number}" for number in range(200))]
    later = [{**combo, "feature_name": f"f{n}", "expression": names[n - 1 : n + 1]} for n in range(1, 200)]
    last = spec({**ID, "feature_name": "f0", "expression": "user:a"}, *later).feature("f199")
    assert (last.inputs, last.side) == (("a",), Side.USER)


def test_resolved_features() -> None:
    resolved = [(f.name, f.side, f.kind, f.is_multi, f.embedding_name, f.inputs) for f in parse_fg(FG).features]
    assert resolved == [
        ("item", Side.ITEM, Kind.CATEGORICAL, False, "item", ("item_id",)),
        ("age", Side.USER, Kind.NUMERIC, False, "age", ("age",)),
        ("tags", Side.USER, Kind.CATEGORICAL, True, "tags", ("tags",)),
        ("liked", Side.USER, Kind.NUMERIC, False, "liked", ("likes",)),
        ("liked_bin", Side.USER, Kind.CATEGORICAL, False, "liked_bin", ("likes",)),
        ("hour", Side.CONTEXT, Kind.CATEGORICAL, False, "hour", ("hour",)),
    ]


def test_sub_feature_is_named_after_its_sequence() -> None:
    (sub,) = parse_fg(FG).sequence_features
    assert (sub.name, sub.side, sub.is_multi, sub.embedding_name) == ("past__item", Side.USER, False, "item")
    assert sub.sequence is not None and sub.sequence.sequence_length == 20


def test_lookups_by_side_kind_and_name() -> None:
    parsed = parse_fg(FG)
    assert [f.name for f in parsed.features_of_side("item")] == ["item"]
    assert parsed.feature("past__item") is parsed.sequence_features[0]
    with pytest.raises(FeatureSpecError, match="feature unknown"):
        parsed.feature("unknown")
    with pytest.raises(ValueError, match="galaxy"):
        parsed.features_of_side("galaxy")


def test_one_error_names_every_wrong_key_and_value() -> None:
    raw = {
        "features": [
            {"feature_type": "magic_feature", "feature_name": "m", "expression": "user:x"},
            {**ID, "feature_name": "typo", "expression": "user:x", "hash_buckets": 3},
            {**ID, "feature_name": "no_colon", "expression": "x"},
            {**ID, "feature_name": "far_side", "expression": "moon:x"},
            {**ID, "feature_name": "no_input"},
            {**RAW, "feature_name": "norm", "expression": "user:x", "normalizer": "method=log2"},
            {"feature_type": "sequence_feature", "sequence_name": "s", "sequence_size": 3, "features": [
                {**RAW, "feature_name": "n", "expression": "user:x"},
                {**ID, "feature_name": "w", "expression": "item:x", "colour": 1},
            ]},
            "text",
        ],
        "reserves": "id",
        "feature": [],
    }  # fmt: skip
    with pytest.raises(FeatureSpecError) as caught:
        parse_fg(raw)
    text = str(caught.value)
    for words in (
        "fg.json, feature m, key feature_type: expected one of: id_feature, raw_feature, ",
        "fg.json, feature typo, key hash_buckets: expected one of: combiner, default_bucketize_value, default_value",
        "fg.json, feature no_colon, key expression: expected a valid value, got 'x': an expression is written side:name",
        "fg.json, feature far_side, key expression: expected a valid value, got 'moon:x': unknown side 'moon'",
        "fg.json, feature no_input, key expression: expected a value, got nothing",
        "fg.json, feature norm, key normalizer: expected a valid value, got 'method=log2': unknown normalizer method 'log2'",
        "fg.json, sequence s, key sequence_size",
        "fg.json, sequence s, feature w, key colour",
        "fg.json, feature number 8: expected a mapping",
        "fg.json, key reserves: expected a valid value, got 'id': Input should be a valid list",
        "fg.json, key feature: expected one of: features, multi_val_sep, reserves, got unknown key 'feature'",
    ):
        assert words in text
    assert len(caught.value.faults) == 11


def test_one_error_names_every_fault_between_features() -> None:
    lookup = {"feature_type": "lookup_feature"}
    with pytest.raises(FeatureSpecError) as caught:
        spec(
            {**ID, "feature_name": "twice", "expression": "user:x"},
            {**ID, "feature_name": "twice", "expression": "user:y"},
            {**lookup, "feature_name": "cross", "map": "user:m", "key": "item:k"},
            {**lookup, "feature_name": "late", "map": "item:m", "key": "context:k"},
            {**ID, "feature_name": "dangling", "expression": "feature:nowhere"},
            {**ID, "feature_name": "self", "expression": "feature:self"},
        )
    assert [f"{fault.where}: expected {fault.expected}, got {fault.got}" for fault in caught.value.faults] == [
        "fg.json, feature cross, inputs: expected inputs of one tower, got user and item inputs together (item:k, user:m)",
        "fg.json, feature dangling: expected a feature of a row of this file, got feature:nowhere",
        "fg.json, feature late, inputs: expected inputs of one tower, got context and item inputs together (context:k, item:m)",
        "fg.json, feature self: expected a feature that does not depend on itself, got feature:self",
        "fg.json, feature twice: expected a unique name, got 2 features of that name",
    ]


def test_crossing_through_another_feature_is_found() -> None:
    likes = {"feature_type": "lookup_feature", "feature_name": "likes", "map": "user:m", "key": "const:k"}
    with pytest.raises(FeatureSpecError, match=r"feature both, inputs.*item:y, user:m"):
        spec(likes, {"feature_type": "lookup_feature", "feature_name": "both", "map": "item:y", "key": "feature:likes"})


@pytest.mark.parametrize("feature", [{**ID, "expression": "feature:s__z"}, {**RAW, "expression": "feature:s__z"},
                                     {"feature_type": "combo_feature", "expression": ["user:a", "feature:s__z"]}])  # fmt: skip
def test_feature_of_a_row_cannot_refer_to_a_sub_feature(feature: dict[str, Any]) -> None:
    sub = {**ID, "feature_name": "z", "expression": "user:z"}
    with pytest.raises(
        FeatureSpecError, match=r"feature f: expected a feature of a row of this file, got feature:s__z, a sub-feature"
    ):
        spec({"feature_type": "sequence_feature", "sequence_name": "s", "features": [sub]}, {**feature, "feature_name": "f"})


def test_cycle_of_features_is_refused() -> None:
    with pytest.raises(FeatureSpecError, match="break the cycle") as caught:
        spec({**ID, "feature_name": "a", "expression": "feature:b"}, {**ID, "feature_name": "b", "expression": "feature:a"})
    assert len(caught.value.faults) == 2


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            [{**ID, "expression": "user:a", "embedding_dim": 4}, {**ID, "expression": "item:b", "embedding_dim": 8}],
            "key embedding_dim",
        ),
        (
            [{**ID, "expression": "user:a", "num_buckets": 4}, {**ID, "expression": "item:b", "hash_bucket_size": 8}],
            "one kind of vocab",
        ),
        ([{**ID, "expression": "user:a"}, {**RAW, "expression": "item:b"}], "features of one kind"),
        ([{**RAW, "expression": "user:a"}, {**RAW, "expression": "item:b"}], "boundaries in every number"),
    ],
)
def test_features_that_share_an_embedding_agree(features: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(FeatureSpecError, match=f"embedding e.*{words}"):
        spec(*({**feature, "feature_name": f"f{i}", "embedding_name": "e"} for i, feature in enumerate(features)))


@pytest.mark.parametrize(
    ("sub", "words"),
    [
        ({**ID, "feature_name": "n", "expression": "const:x"}, "no input is a sequence"),
        ({**ID, "feature_name": "n", "expression": "user:x", "sequence_fields": ["y"]}, "sequence_fields are not inputs: y"),
        (
            {"feature_type": "lookup_feature", "feature_name": "n", "map": "item:m", "key": "feature:f"},
            "reads columns and constants, no other feature",
        ),
        (
            {"feature_type": "id_feature", "feature_name": "n", "expression": "user:x", "weighted": True},
            "weighted is for features outside a sequence",
        ),
        (
            {"feature_type": "sequence_id_feature", "feature_name": "n", "expression": "user:x"},
            "is a sequence itself: use id_feature or raw_feature",
        ),
        (
            {"feature_type": "lookup_feature", "feature_name": "n", "map": "user:m", "key": "user:k"},
            "use an input of the item side, or name the sequences",
        ),
    ],
)
def test_sub_features_without_a_sequence_are_refused(sub: dict[str, Any], words: str) -> None:
    with pytest.raises(FeatureSpecError, match=words):
        spec(
            {"feature_type": "sequence_feature", "sequence_name": "s", "features": [sub]},
            {**ID, "feature_name": "f", "expression": "user:f"},
        )


def test_spellings_of_the_reference_are_read() -> None:
    raw = {"features": [
        {"feature_type": "lookup_feature", "feature_name": "l", "map": "user:m", "key": "user:k", "needDiscrete": True,
         "needKey": False, "combiner": "", "value_type": "string"},
        {"feature_type": "match_feature", "feature_name": "m", "user": "user:n", "category": "ALL", "item": "user:b",
         "matchType": "multihit", "needDiscrete": False, "show_category": False, "show_item": True, "default_value": "0"},
    ]}  # fmt: skip
    found = parse_fg(raw)
    assert [feature.kind for feature in found.features] == [Kind.CATEGORICAL, Kind.CATEGORICAL]
    raw["features"][1]["matchType"] = "hit"
    with pytest.raises(FeatureSpecError, match="match_type hit contradicts the keys"):
        parse_fg(raw)


def test_a_sequence_without_elements_is_refused() -> None:
    # Without the key all elements are kept; a length of 0 would read as none of them.
    sub = {**ID, "feature_name": "n", "expression": "user:x"}
    sequence = {"feature_type": "sequence_feature", "sequence_name": "s", "features": [sub]}
    assert parse_fg({"features": [sequence]}).sequence_features[0].sequence.sequence_length == 0
    with pytest.raises(FeatureSpecError, match=r"sequence_length.*greater than or equal to 1"):
        parse_fg({"features": [{**sequence, "sequence_length": 0}]})
    with pytest.raises(FeatureSpecError, match=r"sequence_length.*less than or equal to 100000"):
        parse_fg({"features": [{**sequence, "sequence_length": 10**6}]})


@pytest.mark.parametrize(
    "other",
    [
        {**ID, "feature_name": "likes__weights", "expression": "user:likes"},
        {**ID, "feature_name": "likes__weights", "expression": "item:x"},
        {
            "feature_type": "sequence_feature",
            "sequence_name": "likes",
            "features": [{**ID, "feature_name": "weights", "expression": "user:x"}],
        },
    ],
)
def test_feature_named_like_a_weights_column_is_refused(other: dict[str, Any]) -> None:
    likes = {"feature_type": "id_feature", "feature_name": "likes", "expression": "user:likes"}
    message = "feature likes__weights: expected a unique name, got the name of the weights column of likes"
    with pytest.raises(FeatureSpecError, match=message):
        spec({**likes, "weighted": True}, other)
    assert spec(likes, other)
