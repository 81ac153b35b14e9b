"""tokenize_feature: tokens of both kinds of tokenizer, defaults, normalized texts, and files that are none."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import dssm_assets_tests.fixtures.tokenizers as fixtures
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.features.buckets import bucket_rule
from dssm_assets.core.features.operators.tokenize_feature import TokenizeFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases

FOLDER = Path(fixtures.__file__).parent
BPE: dict[str, Any] = {"vocab_file": "bpe.json"}
PIECES: dict[str, Any] = {"vocab_file": "pieces.model", "tokenizer_type": "sentencepiece"}
# The file names its tokens; a space is written as Ġ there.
BPE_IDS: dict[str, int] = json.loads((FOLDER / "bpe.json").read_text(encoding="utf-8"))["model"]["vocab"]
# One merge: "abc" is "ab", "c". Id 3 is not used. [B] and [P] would come from the post-processor and the padding.
BY_HAND = {
    "version": "1.0",
    "truncation": None,
    "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 5, "pad_type_id": 0,
                "pad_token": "[P]"},
    "added_tokens": [
        {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for i, word in ((4, "[B]"), (5, "[P]"))
    ],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[B]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[B]": {"id": "[B]", "ids": [4], "tokens": ["[B]"]}},
    },
    "decoder": None,
    "model": {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {"a": 0, "b": 1, "c": 2, "ab": 6},
        "merges": [["a", "b"]],
    },
}  # fmt: skip


def read_file(name: str) -> bytes:
    made = {
        "hand.json": json.dumps(BY_HAND).encode(),
        "bad": b"\xff\x00",
        "empty": b"",
        "object.json": b"{}",
        "stop.txt": b"e",
    }
    return made[name] if name in made else (FOLDER / name).read_bytes()


def feature(**keys: object) -> TokenizeFeature:
    definition = {"feature_name": "f", "expression": "user:t", **keys}
    return TokenizeFeature.model_validate(definition, context={"read_file": read_file})


def values(texts: list[Any], **keys: object) -> list[Any]:
    return list(feature(**keys).compute([pa.array(texts)]).to_pylist())


def bpe(*tokens: str) -> list[str]:
    return [str(BPE_IDS[token]) for token in tokens]


# The libraries start their threads with the first text: that takes longer than hypothesis lets an example take.
unhurried = settings(deadline=None)
OPERATORS = [
    feature(**BPE),
    feature(**BPE, default_value="red wine", text_normalizer={}),
    feature(**PIECES),
    feature(**PIECES, default_value="red wine", text_normalizer={"norm_options": ["TEXT_SPLITCHRS", "TEXT_REMOVE_SPACE"]}),
]
words = st.one_of(cases.texts, st.lists(st.sampled_from([*" rebwi,", "红酒", "wine", "漢"]), max_size=8).map("".join))


@unhurried
@given(st.lists(words, max_size=10), st.sampled_from(OPERATORS))
def test_batch_equals_its_rows(rows: list[str | None], operator: TokenizeFeature) -> None:
    texts = pa.array(rows, pa.string())
    check_rows(operator, texts)
    assert operator.compute([texts.dictionary_encode()]).to_pylist() == operator.compute([texts]).to_pylist()


def test_tokens_of_a_byte_level_bpe() -> None:
    assert values(["red wine", "white bread", "red red"], **BPE) == [
        bpe("red", "Ġwine"),
        bpe("white", "Ġbread"),
        bpe("red", "Ġred"),
    ]


def test_tokens_of_a_sentencepiece_model() -> None:
    # Pieces of the model: 41 "▁", 38 "red", 20 "▁wine", 14 "▁white", 13 "▁bread", 0 unknown.
    assert values(["red wine", "white bread", "é"], **PIECES) == [["41", "38", "20"], ["14", "13"], ["41", "0"]]


def test_nothing_is_added_to_the_tokens_of_the_text() -> None:
    assert values(["abc", "ab ab", "a"], vocab_file="hand.json") == [["6", "2"], ["6", "6"], ["0"]]


def test_vocabulary_holds_every_id() -> None:
    assert feature(vocab_file="hand.json").num_buckets == 7
    assert feature(**BPE).num_buckets == max(BPE_IDS.values()) + 1 == 330
    assert feature(**PIECES).num_buckets == 80


def test_bucket_of_a_token_is_its_id() -> None:
    operator = feature(**PIECES)
    rule = bucket_rule(operator, HashFunction.MURMUR)
    assert rule is not None
    found = rule(operator.compute([pa.array(["red wine", None])]))
    assert found.to_pylist() == [[41, 38, 20], []]


def test_text_without_tokens_gets_the_default() -> None:
    only = {"norm_options": ["TEXT_FILTER"]}
    assert values(["!!", "red!"], **BPE, text_normalizer=only) == [[], bpe("red")]
    assert values(["!!", "red!"], **BPE, text_normalizer=only, default_value="wine!") == [bpe("w", "in", "e", "!"), bpe("red")]


def test_texts_are_normalized_first() -> None:
    lower = {"norm_options": ["TEXT_UPPER2LOWER"]}
    assert values(["RED Wine"], **BPE, text_normalizer=lower) == [bpe("red", "Ġwine")]
    assert values(["ＲＥＤ"], **BPE, text_normalizer={}) == values(["RED"], **BPE)
    stop = {"norm_options": ["TEXT_FILTER"], "stop_char_file": "stop.txt"}
    assert values(["reed wine"], **BPE, text_normalizer=stop) == values(["rd win"], **BPE)


@pytest.mark.parametrize("keys", [BPE, PIECES])
def test_copy_in_another_process_gives_the_same_tokens(keys: dict[str, Any]) -> None:
    operator = feature(**keys)
    copy = pickle.loads(pickle.dumps(operator))
    assert copy.compute([pa.array(["red wine"])]) == operator.compute([pa.array(["red wine"])])


@pytest.mark.parametrize("name", ["bad", "empty", "object.json", "pieces.model"])
def test_file_that_is_not_a_tokenizer_json_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"tokenizer_type bpe needs a tokenizer\.json"):
        feature(vocab_file=name)


@pytest.mark.parametrize("name", ["bad", "empty", "object.json", "bpe.json"])
def test_file_that_is_not_a_model_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="tokenizer_type sentencepiece needs a model"):
        feature(vocab_file=name, tokenizer_type="sentencepiece")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "vocab_file"),
        ({"vocab_file": "nowhere.json"}, "file 'nowhere.json' cannot be read"),
        ({**BPE, "tokenizer_type": "wordpiece"}, "'bpe' or 'sentencepiece'"),
        ({**BPE, "num_buckets": 9}, "Extra inputs"),
        ({**BPE, "hash_bucket_size": 9}, "Extra inputs"),
        ({**BPE, "text_normalizer": {"norm_options": ["LOWER"]}}, "TEXT_LOWER2UPPER"),
    ],
)
def test_bad_definitions_are_refused(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        feature(**keys)


@pytest.mark.parametrize(("keys", "name"), [(BPE, "tokenizers"), (PIECES, "sentencepiece")])
def test_missing_library_refuses_the_definition(keys: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ValidationError, match=rf"needs the library {name}, which is not installed. To fix: pip install 'dssm-assets\[text\]'"
    ):
        feature(**keys)
