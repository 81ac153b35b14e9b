"""A fg.json in the form of the reference's documentation is read unchanged, with its separator and the files that it names."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.spec import parse_fg

TEXT = """{
  "features": [
    {"expression": "user:member", "feature_name": "member", "feature_type": "id_feature", "value_type": "String",
     "combiner": "mean", "hash_bucket_size": 1000, "embedding_dim": 8, "group": "user"},
    {"expression": "item:weight", "feature_name": "weight", "feature_type": "raw_feature", "value_type": "Integer",
     "combiner": "mean", "group": "item"},
    {"expression": "user:hobbies", "feature_name": "hobbies", "feature_type": "id_feature", "hash_bucket_size": 100,
     "combiner": "sum", "group": "user"},
    {"expression": "user:aims", "feature_name": "aims", "feature_type": "id_feature", "separator": ",", "group": "user"},
    {"map": "user:clubs", "key": "user:hobbies", "feature_name": "clubs", "feature_type": "lookup_feature",
     "needDiscrete": true, "combiner": "sum", "hash_bucket_size": 100, "group": "combo"},
    {"expression": ["user:hobbies", "user:valid"], "feature_name": "open", "feature_type": "bool_mask", "group": "user"},
    {"feature_type": "sequence_feature", "sequence_name": "past", "group": "user", "features": [
      {"expression": "item:brands", "feature_name": "brands", "feature_type": "id_feature", "value_dim": 0, "group": "item"},
      {"expression": ["item:brands", "item:valid"], "feature_name": "open", "feature_type": "bool_mask"}
    ]}
  ],
  "reserves": ["member", "clicked"],
  "multi_val_sep": "|"
}"""
REQUEST = {
    "member": 7,
    "weight": "30",
    "hobbies": "chess|tea",
    "aims": "a|b,c",
    "clubs": "chess:x|tea:y|sun:z",
    "valid": "true|false",
    "past__brands": "p|q;r",
    "past__valid": "false|true;true",
}


def test_file_separator_applies_to_features_without_one() -> None:
    generator = FeatureGenerator.from_fg_json(json.loads(TEXT))
    expected = {
        "member": ["7"],
        "weight": 30,
        "hobbies": ["chess", "tea"],
        "aims": ["a|b", "c"],
        "clubs": ["x", "y"],
        "open": ["chess"],
        "past__brands": [["p", "q"], ["r"]],
        "past__open": ["q", "r"],
    }
    assert generator.generate_one(REQUEST) == expected
    table = generator.generate(pa.table({name: [value] for name, value in REQUEST.items()}))
    assert table.to_pylist() == [expected]


@pytest.mark.parametrize("kind", sorted(OPERATORS))
def test_every_feature_type_accepts_group_and_combiner(kind: str) -> None:
    fields = OPERATORS[kind].model_fields
    assert fields["group"].default is None
    assert fields["combiner"].default == ("sum" if kind in ("lookup_feature", "match_feature") else None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"multi_val_sep": ""}, "key multi_val_sep: expected a valid value, got ''"),
        ({"multi_val_sep": 3}, "key multi_val_sep: expected a valid value, got 3"),
        ({"kv_sep": ":"}, "key kv_sep: expected one of: features, multi_val_sep, reserves"),
    ],
)
def test_invalid_file_keys_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FeatureSpecError, match=words):
        parse_fg(json.loads(TEXT) | change)


@pytest.mark.parametrize(("key", "value"), [("groups", "user"), ("combiner", "median"), ("group", 3)])
def test_invalid_feature_keys_are_refused(key: str, value: object) -> None:
    raw = json.loads(TEXT)
    raw["features"][0][key] = value
    with pytest.raises(FeatureSpecError, match=f"feature member, key {key}"):
        parse_fg(raw)


WORDS = {"feature_type": "id_feature", "feature_name": "f", "expression": "user:x", "vocab_file": "words.txt",
         "default_bucketize_value": 0}  # fmt: skip


def read_fg(raw: Any, words: str | bytes) -> FeatureGenerator:
    files = {"words.txt": words if isinstance(words, bytes) else words.encode()}

    def read_file(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return FeatureGenerator.from_fg_json(raw, read_file=read_file)


def test_the_words_of_a_file_have_its_line_numbers() -> None:
    generator = read_fg({"features": [WORDS], "reserves": ["user_id"]}, "zero\none\n\ntwo words\n")
    assert generator.bucketize_one({"x": ["zero", "one", "two words", "three"]}) == {"f": [0, 1, 2, 0]}


def test_vocabulary_file_may_give_the_buckets() -> None:
    assert read_fg({"features": [WORDS]}, "a 7\nb c 3\n").bucketize_one({"x": ["a", "b c", "b"]}) == {"f": [7, 3, 0]}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("", "at least one word"),
        ("a\na\n", "repeats 1 words"),
        ("a 1\nb\n", "line 2 differs"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_bad_vocabulary_file_is_refused(words: str | bytes, fault: str) -> None:
    with pytest.raises(FeatureSpecError, match=f"fg.json, feature f.*{fault}"):
        read_fg({"features": [WORDS]}, words)


def test_missing_file_is_named() -> None:
    with pytest.raises(FeatureSpecError, match=r"file 'other.txt' cannot be read: "):
        read_fg({"features": [{**WORDS, "vocab_file": "other.txt"}]}, "a")
