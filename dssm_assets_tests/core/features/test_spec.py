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


def chain(length: int, inputs: int = 1) -> dict[str, Any]:
    """Returns features that read those before them, each the last one, or the last two."""
    names = ["user:a", *(f"feature:f{number}" for number in range(length))]
    shape = {"feature_type": "combo_feature"} if inputs > 1 else ID
    expressions = [names[max(0, n + 1 - inputs) : n + 1] for n in range(length)]
    return {
        "features": [
            {**(shape if len(e) > 1 else ID), "feature_name": f"f{n}", "expression": e if len(e) > 1 else e[0]}
            for n, e in enumerate(expressions)
        ]
    }


@pytest.mark.parametrize("inputs", [1, 2])
def test_chains_of_features_have_a_bounded_length(inputs: int) -> None:
    """With two inputs, 2 ** 200 paths lead to the column."""
    last = parse_fg(chain(200, inputs)).feature("f199")
    assert (last.inputs, last.side) == (("a",), Side.USER)
    with pytest.raises(FeatureSpecError, match=r"feature f200: expected at most 200 features that read one another"):
        parse_fg(chain(3_000, inputs))
    cycle = chain(3_000)["features"]
    cycle[0]["expression"] = "feature:f2999"
    with pytest.raises(FeatureSpecError, match=r"at most 200 features that read one another"):
        parse_fg({"features": cycle})


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


def test_one_error_names_every_fault() -> None:
    raw = {
        "features": [
            {"feature_type": "magic_feature", "feature_name": "m", "expression": "user:x"},
            {**ID, "feature_name": "typo", "expression": "user:x", "hash_buckets": 3},
            {**ID, "feature_name": "twice", "expression": "user:x"},
            {**ID, "feature_name": "twice", "expression": "user:y"},
            {**ID, "feature_name": "no_colon", "expression": "x"},
            {**ID, "feature_name": "far_side", "expression": "moon:x"},
            {**ID, "feature_name": "no_input"},
            {"feature_type": "lookup_feature", "feature_name": "cross", "map": "user:m", "key": "item:k"},
            {"feature_type": "lookup_feature", "feature_name": "late", "map": "item:m", "key": "context:k"},
            {**RAW, "feature_name": "norm", "expression": "user:x", "normalizer": "method=log2"},
            {**ID, "feature_name": "dangling", "expression": "feature:nowhere"},
            {**ID, "feature_name": "self", "expression": "feature:self"},
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
        "fg.json, feature twice: expected a unique name, got 2 features of that name",
        "fg.json, feature no_colon, key expression: expected a valid value, got 'x': an expression is written side:name",
        "fg.json, feature far_side, key expression: expected a valid value, got 'moon:x': unknown side 'moon'",
        "fg.json, feature no_input, key expression: expected a value, got nothing",
        "fg.json, feature cross, inputs: expected inputs of one tower, got user and item inputs together (item:k, user:m)",
        "fg.json, feature late, inputs: expected inputs of one tower, got context and item",
        "fg.json, feature norm, key normalizer: expected a valid value, got 'method=log2': unknown normalizer method 'log2'",
        "fg.json, feature dangling: expected a feature of this file, got feature:nowhere",
        "fg.json, feature self: expected a feature that does not depend on itself",
        "fg.json, sequence s, key sequence_size",
        "fg.json, sequence s, feature w, key colour",
        "fg.json, feature number 14: expected a mapping",
        "fg.json, key reserves",
        "fg.json, key feature: expected one of: features, reserves",
    ):
        assert words in text
    assert len(caught.value.faults) == 16


def sequence(*subs: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"feature_type": "sequence_feature", "sequence_name": "s", "features": list(subs), **keys}


LOOKUP = {"feature_type": "lookup_feature", "map": "user:m", "key": "const:k"}
USER_X = {**ID, "feature_name": "n", "expression": "user:x"}
OF_SUB_FEATURE = [{**ID, "expression": "feature:s__n"}, {**RAW, "expression": "feature:s__n"},
                  {"feature_type": "combo_feature", "expression": ["user:a", "feature:s__n"]}]  # fmt: skip
SHARED = [
    ({**ID, "embedding_dim": 4}, {**ID, "embedding_dim": 8}, "key embedding_dim"),
    ({**ID, "num_buckets": 4}, {**ID, "hash_bucket_size": 8}, "one kind of vocab"),
    (ID, RAW, "features of one kind"),
    (RAW, RAW, "boundaries in every number"),
]
SUB_FEATURES = [
    ({**USER_X, "expression": "const:x"}, "no input is a sequence"),
    ({**USER_X, "sequence_fields": ["y"]}, "sequence_fields are not inputs: y"),
    ({**LOOKUP, "map": "item:m", "key": "feature:f"}, "columns and constants, got feature:f"),
    ({"feature_type": "id_feature", "expression": "user:x", "weighted": True}, "false inside a sequence"),
    ({"feature_type": "sequence_id_feature", "expression": "user:x"}, "a type that is not a sequence itself"),
    ({**LOOKUP, "key": "user:k"}, "use an input of the item side, or name the sequences"),
]
REFUSED: list[tuple[list[dict[str, Any]], str]] = [
    (
        [{**LOOKUP, "feature_name": "likes"}, {**LOOKUP, "feature_name": "both", "map": "item:y", "key": "feature:likes"}],
        r"feature both, inputs.*item:y, user:m",
    ),
    (
        [{**ID, "feature_name": name, "expression": f"feature:{other}"} for name, other in ("ab", "ba")],
        "(?s)2 faults.*break the cycle",
    ),
    *(
        ([sequence(USER_X), {**feature, "feature_name": "f"}], r"feature f: expected a feature of the row, got feature:s__n")
        for feature in OF_SUB_FEATURE
    ),
    *(
        (
            [
                {**first, "feature_name": "f0", "expression": "user:a", "embedding_name": "e"},
                {**second, "feature_name": "f1", "expression": "item:b", "embedding_name": "e"},
            ],
            f"embedding e.*{words}",
        )
        for first, second, words in SHARED
    ),
    *(
        ([sequence({**sub, "feature_name": "n"}), {**ID, "feature_name": "f", "expression": "user:f"}], words)
        for sub, words in SUB_FEATURES
    ),
    ([sequence(USER_X, sequence_length=0)], r"sequence_length.*greater than or equal to 1"),
    ([sequence(USER_X, sequence_length=10**6)], r"sequence_length.*less than or equal to 100000"),
]


@pytest.mark.parametrize(("features", "words"), REFUSED)
def test_features_that_do_not_fit_together_are_refused(features: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(FeatureSpecError, match=words):
        spec(*features)


def test_without_a_length_all_elements_of_a_sequence_are_kept() -> None:
    assert spec(sequence(USER_X)).sequence_features[0].sequence.sequence_length == 0


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
