"""The manifest: text form and digest."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.storage.manifest import Column, Manifest, StoredFile

FIRST = StoredFile("a.parquet", "a-11.parquet", 10, "1" * 64, 3)
SECOND = StoredFile("b.parquet", "b-22.parquet", 5, "2" * 64, 4)
MANIFEST = Manifest(
    asset="sample",
    ds="2024-01-02",
    files=(FIRST, SECOND),
    columns=(Column("user_id", "string", "Who acted."),),
    inputs={"behavior/2024-01-02": "ab"},
    facts={"seed": 7, "days": {"2024-01-01": "cd"}},
)

texts = st.text(max_size=8)
numbers = st.integers(min_value=0, max_value=2**40)
stored_files = st.builds(StoredFile, texts, texts, numbers, texts, numbers)
manifests = st.builds(
    Manifest,
    asset=texts,
    ds=texts,
    files=st.lists(stored_files, max_size=3).map(tuple),
    columns=st.lists(st.builds(Column, texts, texts, texts), max_size=3).map(tuple),
    inputs=st.dictionaries(texts, texts, max_size=3),
    facts=st.dictionaries(texts, st.one_of(numbers, texts, st.booleans(), st.lists(texts, max_size=2)), max_size=3),
)


@given(manifests)
def test_to_json_and_from_json_are_inverse(manifest):
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_the_digest_changes_with_content_name_and_order():
    changed = [
        replace(MANIFEST, files=(replace(FIRST, sha256="3" * 64), SECOND)),
        replace(MANIFEST, files=(replace(FIRST, name="c.parquet"), SECOND)),
        replace(MANIFEST, files=(SECOND, FIRST)),
        replace(MANIFEST, files=(FIRST,)),
    ]
    assert len({MANIFEST.digest, *(manifest.digest for manifest in changed)}) == 5
