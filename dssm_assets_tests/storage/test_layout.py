"""Names of stored files and folders."""

import pytest

from dssm_assets.storage import layout


def test_paths_follow_the_documented_tree():
    assert layout.manifest_path("/data/", "sample", "2024-01-02") == "/data/sample/ds=2024-01-02/_manifest.json"
    assert layout.file_path("/data", "sample", "2024-01-02", "part-0.parquet") == "/data/sample/ds=2024-01-02/part-0.parquet"
    assert layout.file_path("/data", "users", "2024-01-02", "_shared/part-0.parquet") == "/data/users/_shared/part-0.parquet"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("part-00000.parquet", "part-00000-0123456789ab.parquet"),
        ("a.b.json", "a.b-0123456789ab.json"),
        ("README", "README-0123456789ab"),
    ],
)
def test_content_name_puts_the_digest_before_the_ending(name, expected):
    assert layout.content_name(name, "0123456789abcdef" * 4) == expected


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/data/sample/ds=2024-01-02", "2024-01-02"),
        ("/data/sample/ds=2024-01-02/", "2024-01-02"),
        ("/data/sample/ds=20240102", None),
        ("/data/sample/_shared", None),
        ("/data/ds=2024-01-02/other", None),
    ],
)
def test_only_partition_folders_have_a_day(folder, expected):
    assert layout.ds_of_folder(folder) == expected
