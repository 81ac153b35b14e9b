"""Deletes that other engines write beside the data files, and the libraries only read: deletion vectors, position and equality deletes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg import manifest
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.typedef import Record

_FILE_PATH = 2147483546
"""The column with the path of a data file in a file of positions."""
_FEATURES = ["deletionVectors"]


def delete_second_row(folder: Path, name: str) -> None:
    """Deletes the second row of a Delta table's file as Spark does: by an inline deletion vector, {1} as a roaring bitmap in Z85."""
    log = folder / "_delta_log"
    actions = [json.loads(line) for path in sorted(log.glob("*.json")) for line in path.read_text().splitlines()]
    file = next(action["add"] for action in actions if "add" in action and action["add"]["path"].endswith(name))
    vector = {
        "storageType": "i",
        "pathOrInlineDv": "^Bg9^0rr910000000000iXQKl0rr91000005c8Xg0rr91",
        "sizeInBytes": 34,
        "cardinality": 1,
    }
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": _FEATURES, "writerFeatures": _FEATURES}
    written = [
        {"protocol": protocol},
        {"remove": {"path": file["path"], "dataChange": True, "deletionTimestamp": 1}},
        {"add": {**file, "deletionVector": vector}},
    ]
    path = log / f"{len([*log.glob('*.json')]):020d}.json"
    path.write_text("".join(f"{json.dumps(action)}\n" for action in written))


def rename_columns(folder: Path, renamed: dict[str, str]) -> None:
    """Renames columns in the first commit of a Delta table by column mapping: its files keep their names."""
    path = folder / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    for action in actions:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            for number, column in enumerate(schema["fields"], start=1):
                stored = column["name"]
                column["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": stored}
                column["name"] = renamed.get(stored, stored)
            action["metaData"]["schemaString"] = json.dumps(schema)
            action["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}
    path.write_text("".join(f"{json.dumps(action)}\n" for action in actions))


def write_position_deletes(table: Any, path: str, rows: list[int]) -> None:
    """Deletes rows of an Iceberg table's file by a file of positions."""
    deletes = pa.table({"file_path": [path] * len(rows), "pos": pa.array(rows, pa.int64())})
    bounds = {_FILE_PATH: path.encode()}
    described = {"content": manifest.DataFileContent.POSITION_DELETES, "lower_bounds": bounds, "upper_bounds": bounds}
    _commit_deletes(table, deletes, [_FILE_PATH, _FILE_PATH - 1], described)


def write_equality_deletes(table: Any, column: str, values: list[str]) -> None:
    """Deletes the rows of an Iceberg table that have some values, by a file of them."""
    ids = [table.schema().find_field(column).field_id]
    _commit_deletes(
        table, pa.table({column: values}), ids, {"content": manifest.DataFileContent.EQUALITY_DELETES, "equality_ids": ids}
    )


class _DeletesWriter(manifest.ManifestWriterV2):
    def content(self) -> manifest.ManifestContent:
        return manifest.ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


def _commit_deletes(table: Any, rows: pa.Table, columns: list[int], described: dict[str, Any]) -> None:
    """Writes a file of deletes for an unpartitioned table, and a snapshot with it."""
    folder, before, number = f"{table.location()}/metadata", table.current_snapshot(), table.current_snapshot().snapshot_id + 1
    fields = [
        pa.field(column.name, column.type, False, {"PARQUET:field_id": str(field_id)})
        for column, field_id in zip(rows.schema, columns, strict=True)
    ]
    path = f"{table.location()}/data/deletes-{number}.parquet"
    with table.io.new_output(path).create() as sink:
        pq.write_table(rows.cast(pa.schema(fields)), sink)
    stored = {"file_path": path, "file_format": manifest.FileFormat.PARQUET, "record_count": len(rows), "file_size_in_bytes": 1}
    file = manifest.DataFile.from_args(partition=Record(), **stored, **described)
    file.spec_id = table.spec().spec_id
    output = table.io.new_output(f"{folder}/{number}.avro")
    with _DeletesWriter(table.spec(), table.schema(), output, number, "null") as writer:
        writer.add(
            manifest.ManifestEntry.from_args(status=manifest.ManifestEntryStatus.ADDED, snapshot_id=number, data_file=file)
        )
    sequence = table.last_sequence_number + 1
    listed = table.io.new_output(f"{folder}/snap-{number}.avro")
    with manifest.write_manifest_list(2, listed, number, before.snapshot_id, sequence, "null") as lister:
        lister.add_manifests([*before.manifests(table.io), writer.to_manifest_file()])
    ids = {"snapshot_id": number, "parent_snapshot_id": before.snapshot_id, "schema_id": table.schema().schema_id}
    snapshot = Snapshot(**ids, sequence_number=sequence, manifest_list=listed.location, summary=Summary(Operation.DELETE))
    branch = SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=number)
    is_newest = AssertRefSnapshotId(ref="main", snapshot_id=before.snapshot_id)
    table.catalog.commit_table(table, (is_newest,), (AddSnapshotUpdate(snapshot=snapshot), branch))
