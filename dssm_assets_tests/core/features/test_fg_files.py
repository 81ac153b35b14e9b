"""A fg.json on disk: it is read with the files in its folder and written back unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator

WORDS = {"feature_type": "id_feature", "feature_name": "f", "expression": "user:x", "vocab_file": "words.txt",
         "default_bucketize_value": 0}  # fmt: skip


def write_fg(folder: Path, raw: Any, words: str | bytes) -> str:
    (folder / "words.txt").write_bytes(words if isinstance(words, bytes) else words.encode())
    (folder / "fg.json").write_text(json.dumps(raw))
    return str(folder / "fg.json")


def test_paths_are_relative_to_the_fg_json(tmp_path: Path) -> None:
    raw = {"features": [WORDS], "reserves": ["user_id"]}
    generator = FeatureGenerator.from_fg_json(write_fg(tmp_path, raw, "zero\none\n\ntwo words\n"))
    assert generator.bucketize_one({"x": ["zero", "one", "two words", "three"]}) == {"f": [0, 1, 2, 0]}
    assert generator.spec.raw == raw
    again = FeatureGenerator.from_fg_json(generator.spec.raw, read_file=lambda name: (tmp_path / name).read_bytes())
    assert again.bucketize_one({"x": "one"}) == {"f": [1]}


def test_vocabulary_file_may_give_the_buckets(tmp_path: Path) -> None:
    path = write_fg(tmp_path, {"features": [WORDS]}, "a 7\nb c 3\n")
    assert FeatureGenerator.from_fg_json(path).bucketize_one({"x": ["a", "b c", "b"]}) == {"f": [7, 3, 0]}


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        ("", "at least one word"),
        ("a\na\n", "repeats 1 words"),
        ("a 1\nb\n", "line 2 differs"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_bad_vocabulary_file_is_refused(tmp_path: Path, words: str | bytes, fault: str) -> None:
    with pytest.raises(FeatureSpecError, match=f"fg.json, feature f.*{fault}"):
        FeatureGenerator.from_fg_json(write_fg(tmp_path, {"features": [WORDS]}, words))


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = write_fg(tmp_path, {"features": [{**WORDS, "vocab_file": "other.txt"}]}, "a")
    with pytest.raises(FeatureSpecError, match=r"other.txt.*cannot be read"):
        FeatureGenerator.from_fg_json(path)
    with pytest.raises(FileNotFoundError):
        FeatureGenerator.from_fg_json(str(tmp_path / "none.json"))


def test_file_that_is_not_a_json_mapping_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fg.json").write_text("[]")
    with pytest.raises(FeatureSpecError, match="a mapping, got list"):
        FeatureGenerator.from_fg_json(str(tmp_path / "fg.json"))
    (tmp_path / "fg.json").write_text("{")
    with pytest.raises(FeatureSpecError, match="JSON"):
        FeatureGenerator.from_fg_json(str(tmp_path / "fg.json"))
