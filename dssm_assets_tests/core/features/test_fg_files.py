"""A fg.json is read with the files that it names."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator

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
