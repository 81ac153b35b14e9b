"""Unusable places and broken files give typed errors that name them, for every reader and writer of user files."""

import gzip
import importlib.util

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import DssmError, InputError, SchemaError
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.storage.files import TableWriter, read_parquet
from dssm_assets.storage.locations import open_location
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source_files import open_source

NO_SERVER = {
    "key": "k",
    "secret": "s",
    "endpoint_url": "http://127.0.0.1:9",
    "config_kwargs": {"connect_timeout": 10, "retries": {"max_attempts": 0}},
}
"""S3 options of a port where nothing listens; without botocore's waits, which take up to 15 s."""

PLACES = [
    "gopher://host/path",
    "s3:/one-slash",
    "bad\0name.parquet",
    "bad\ud800name.parquet",
    "/dev/null/inside.parquet",
    *([] if importlib.util.find_spec("gcsfs") else ["gs://bucket/x.parquet"]),
]
OPENERS = {
    "source table": lambda uri: open_source(SourceTable(uri="users").model_copy(update={"uri": uri}), "user_table"),
    "vectors": lambda uri: read_parquet(uri, ["user_id"], "user vectors"),
    "output": lambda uri: TableWriter(uri).write(pa.table({"user_id": [1]})),
    "bundle": lambda uri: BundleStore(uri).current_id(),
    "store": lambda uri: PartitionStore(uri).find("user_table", "2026-11-22"),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("uri", PLACES, ids=ascii)
def test_unusable_place_is_an_input_error(opener, uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if opener == "store" and uri == "s3:/one-slash":
        assert OPENERS[opener](uri) is None  # a relative folder, in which there is nothing yet
        return
    if opener == "output" and uri == "s3:/one-slash":
        uri = "s3:/one-slash.txt"
    with pytest.raises(InputError) as caught:
        OPENERS[opener](uri)
    assert all(fault.remedy and fault.where.isprintable() for fault in caught.value.faults) or "\0" in uri


@pytest.mark.parametrize(
    "open_it",
    [
        lambda: open_source(SourceTable(uri="s3://bucket/users", storage_options=NO_SERVER), "user_table"),
        lambda: BundleStore("s3://bucket/serving", NO_SERVER).current_id(),
        lambda: BundleStore("s3://bucket/serving", NO_SERVER).pointer(),
        lambda: PartitionStore("s3://bucket/tables", NO_SERVER).find("user_table", "2026-11-22"),
    ],
)
def test_host_that_does_not_answer_is_an_input_error(open_it):
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*To fix"):
        open_it()


def test_s3_has_time_limits_which_options_change_one_by_one():
    fs, path = open_location("s3a://bucket/key", "table", {"key": "k", "secret": "s"})
    limits = {"connect_timeout": 10, "read_timeout": 60, "retries": {"mode": "standard", "max_attempts": 4}}
    assert (path, fs.config_kwargs, fs.session.profile) == ("bucket/key", limits, None)
    options = {
        "key": "k",
        "secret": "s",
        "profile": "shop",
        "config_kwargs": {"connect_timeout": 3, "retries": {"max_attempts": 1}},
    }
    fs, _ = open_location("s3://bucket/key", "table", options)
    changed = {**limits, "connect_timeout": 3, "retries": {"mode": "standard", "max_attempts": 1}}
    assert (fs.config_kwargs, fs.session.profile) == (changed, "shop")


WHOLE = pa.table({"user_id": [f"user{n % 40}" for n in range(400)], "vector": [[float(n), 1.0] for n in range(400)]})


def parquet_bytes(compression):
    sink = pa.BufferOutputStream()
    pq.write_table(WHOLE, sink, compression=compression)
    return sink.getvalue().to_pybytes()


@given(
    compression=st.sampled_from(["snappy", "zstd", "none"]),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    kept=st.floats(0, 1),
)
def test_broken_parquet_is_read_or_refused(tmp_path_factory, compression, cuts, kept):
    content = bytearray(parquet_bytes(compression))
    for place, value in cuts:
        content[int(place * (len(content) - 1))] = value
    if kept < 0.5:
        del content[int(kept * 2 * len(content)) :]
    path = tmp_path_factory.mktemp("broken") / "users.parquet"
    path.write_bytes(content)
    for read in (
        lambda: read_parquet(str(path), ["user_id", "vector"], "user vectors"),
        lambda: list(read_days(open_source(SourceTable(uri=str(path)), "user_table"), ["2026-11-22"])),
    ):
        try:
            read()
        except DssmError as error:
            assert str(path) in str(error)  # it may also be readable


BROKEN_CSV = pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", gzip.compress(b"user_id,age\nu1,3\n", mtime=10)),  # its newlines make two lines of it
        ("log.csv.gz", gzip.compress(b"user_id,age\nu1,3\n" * 999)[:-30]),
        ("log.csv.gz", b"user_id,age\nu1,3\n"),
        ("log.csv", b"user_id,age,age\nu1,3,4\n"),
        ("log.csv", b""),
    ],
    ids=["compressed without ending", "cut off", "not compressed", "two of a name", "empty"],
)


@BROKEN_CSV
def test_broken_csv_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    table = SourceTable(uri=str(path), format="csv")
    with pytest.raises(SchemaError, match=name):
        list(read_days(open_source(table, "user_table"), ["2026-11-22"]))


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = str(tmp_path / "users.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["user_id", "user_id"]), path)
    with pytest.raises(SchemaError, match="several columns named user_id"):
        read_parquet(path, ["user_id"], "truth")
    with pytest.raises(SchemaError, match="several columns named user_id"):
        open_source(SourceTable(uri=path), "user_table").pieces()[0].schema()
