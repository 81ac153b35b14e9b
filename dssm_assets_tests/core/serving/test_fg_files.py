"""The files that a fg.json names travel with it, whatever their paths were."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from dssm_assets.core.errors import FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.serving.fg_files import packed_fg

CONTENT = {"/etc/words/colour.txt": b"red\nblue\n", "../colour.txt": b"green\n"}


def fg() -> dict[str, Any]:
    def feature(name: str, file: str) -> dict[str, Any]:
        keys = {"vocab_file": file, "default_bucketize_value": 0}
        return {"feature_type": "id_feature", "feature_name": name, "expression": f"user:{name}", **keys}

    # The third feature has a file's name as a value that names no file.
    other = {"feature_type": "id_feature", "feature_name": "c", "expression": "user:c", "default_value": "../colour.txt"}
    return {"features": [feature("a", "/etc/words/colour.txt"), feature("b", "../colour.txt"), other]}


def test_files_are_renamed_by_content_and_read_from_beside() -> None:
    raw = fg()
    packed, files = packed_fg(raw, CONTENT.__getitem__)
    names = [f"fg_files/{hashlib.sha256(content).hexdigest()[:12]}-colour.txt" for content in CONTENT.values()]
    assert files == dict(zip(names, CONTENT.values(), strict=True))
    assert [feature.get("vocab_file") for feature in packed["features"]] == [*names, None]
    assert packed["features"][2]["default_value"] == "../colour.txt"
    assert raw == fg()
    here = FeatureGenerator.from_fg_json(json.loads(json.dumps(packed)), read_file=files.__getitem__)
    there = FeatureGenerator.from_fg_json(raw, read_file=CONTENT.__getitem__)
    for request in ({"a": "blue", "b": "green"}, {"a": "green", "b": "red"}):
        assert here.bucketize_one(request) == there.bucketize_one(request)


def test_without_files_the_definitions_are_the_same() -> None:
    raw = {"features": [{"feature_type": "id_feature", "feature_name": "a", "expression": "user:a"}], "reserves": ["x"]}
    assert packed_fg(raw, CONTENT.__getitem__) == (raw, {})


def test_a_file_that_cannot_be_read_is_named() -> None:
    def missing(name: str) -> bytes:
        raise FileNotFoundError(name)

    with pytest.raises(FeatureSpecError, match=r"colour\.txt"):
        packed_fg(fg(), missing)
