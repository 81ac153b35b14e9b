"""FarmHash Fingerprint64: hashes and buckets that others publish, and Google's own code on every range of lengths."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.hash_function import HashFunction
from dssm_assets.core.features.hashing import hash_texts, hash_values
from dssm_assets_tests.core.features.hash_goldens import Golden, goldens

SIGNED = {
    # FARM_FINGERPRINT in the reference of BigQuery.
    "1footrue": -1541654101129638711, "2applefalse": 2794438866806483259, "3true": -4880158226897771312,
    # farmFingerprint64 in the reference of Redshift.
    "Amazon Redshift": 8085098817162212970,
    # farmHashFingerprint64 of Guava.
    "alphabet": -2427165924636348523,
}  # fmt: skip


def fingerprints(values: list[bytes]) -> list[int]:
    """Returns the fingerprints of values hashed together."""
    fingerprints: list[int] = hash_values(pa.array(values, pa.binary()), HashFunction.FARM).tolist()
    return fingerprints


@pytest.mark.parametrize(("text", "bucket"), [("1", 49), ("2", 59), ("3", 21)])
def test_buckets_of_the_reference(text: str, bucket: int) -> None:
    assert fingerprints([text.encode()])[0] % 100 == bucket


def test_buckets_of_tensorflow() -> None:
    # tf.strings.to_hash_bucket_fast(["Hello", "TensorFlow", "2.x"], 3) in its documentation.
    assert [fingerprint % 3 for fingerprint in fingerprints([b"Hello", b"TensorFlow", b"2.x"])] == [0, 2, 2]


def test_published_hashes() -> None:
    assert hash_texts(list(SIGNED), HashFunction.FARM).tolist() == list(SIGNED.values())


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: len(golden.value))
def test_hashes_of_googles_code(golden: Golden) -> None:
    assert fingerprints([golden.value]) == [golden.farm]


@given(st.lists(st.integers(0, 300).flatmap(lambda size: st.binary(min_size=size, max_size=size)), max_size=20))
def test_values_of_all_lengths_together_are_as_each_alone(values: list[bytes]) -> None:
    assert fingerprints(values) == [fingerprints([value])[0] for value in values]
