"""Rewrites partitions and bundles without the rows of forgotten users.

Files without such rows stay as they are. The other files are rewritten with the remaining rows in the same order, types and
encodings. Other partitions keep their row numbers (`user_row` of samples): the manifest says which rows are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import Mask, combine_chunks, ranges
from dssm_assets.core.file_names import BundleFile, TrainSamplesFile
from dssm_assets.core.samples.sample_tables import HISTORY_END, HISTORY_START, USER_INDEX
from dssm_assets.extras.retention.forgotten import Forgotten
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.storage import layout
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.local_files import map_arrow, write_arrow
from dssm_assets.storage.manifest import Erasure, Manifest, StoredFile
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import stored_schema

_POINTED_AT: Final = "user_features_fg"
"""Other partitions store row numbers of this table."""
_BUNDLE_FILES: Final = (BundleFile.USER_VECTORS, BundleFile.OWN_ITEMS, BundleFile.USER_INPUTS)
"""Files of a bundle with one row per user. The first one holds the ids."""


class Eraser:
    """Removes the rows of forgotten users from a store's partitions. Without `writes` it only counts them.

    It adds the hash of each user it finds to the set `found`.
    """

    def __init__(self, store: PartitionStore, forgotten: Forgotten, found: set[str], *, writes: bool) -> None:
        self._store, self._forgotten, self._found, self._writes = store, forgotten, found, writes
        self._shared: dict[str, StoredFile] = {}  # path of a file shared by several days -> its rewritten file

    def erase(self, manifest: Manifest) -> Manifest | None:
        """Publishes the partition without their rows and returns its manifest. None: the partition has none of their rows.

        Raises:
            PartitionReplacedError: another run has written the partition meanwhile, so it must be looked at again.
        """
        with self._store.reading([manifest]), self._store.staging() as folder:
            erase_files = self._erase_samples if manifest.asset == "train_samples" else self._erase_table
            files, rows = erase_files(manifest, folder)
            if not len(rows):
                return None
            numbers = tuple(rows.tolist()) if manifest.asset == _POINTED_AT else ()
            erasure = Erasure(self._forgotten.request, manifest.digest, manifest.size_bytes, len(rows), numbers)
            if not self._writes:
                return replace(manifest, erasures=(*manifest.erasures, erasure))
            after = self._store.rewrite(manifest, files, erasure)
        pairs = zip(manifest.files, after.files, strict=True)
        self._shared |= {old.path: new for old, new in pairs if layout.is_shared(old.path)}
        return after

    def _erase_table(self, manifest: Manifest, folder: Path) -> tuple[list[tuple[Path, int] | StoredFile], Any]:
        files: list[tuple[Path, int] | StoredFile] = []
        gone, start = [], 0
        for file in manifest.files:
            path, fs = self._store.file_path(manifest, file), None if self._store.is_local else self._store.fs
            with pq.ParquetFile(path, filesystem=fs) as parquet:
                groups = range(parquet.num_row_groups)
                ids = (parquet.read_row_group(group, [col.USER_ID]).column(0) for group in groups)
                masks = [find_users(each, self._forgotten, self._found) for each in ids]
                is_theirs = np.concatenate([*masks, np.zeros(0, np.bool_)])
                gone.append(start + np.flatnonzero(is_theirs))
                start += len(is_theirs)
                if not is_theirs.any():
                    files.append(file)
                elif (known := self._shared.get(file.path)) is not None:
                    files.append(known)
                elif self._writes:
                    kept = (parquet.read_row_group(group).filter(pa.array(~mask)) for group, mask in enumerate(masks))
                    _write_like(folder / file.name, parquet, kept)
                    files.append((folder / file.name, file.rows - int(is_theirs.sum())))
        return files, np.concatenate(gone)

    def _erase_samples(self, manifest: Manifest, folder: Path) -> tuple[list[tuple[Path, int] | StoredFile], Any]:
        """Returns training files without the users' samples, histories and features, and the numbers of the removed samples.

        The files refer to each other by row numbers, so all of these change. Samples without a history do not name their user.
        """
        stored = {file.name: file for file in manifest.files}
        artifacts = ArtifactStore(self._store, folder)
        tables = {name: artifacts.map_table(manifest, name) for name in stored}
        users = tables[TrainSamplesFile.USERS]
        is_user = find_users(users.column(col.USER_ID), self._forgotten, self._found)
        if not is_user.any():
            return [], np.zeros(0, np.int64)
        starts, ends = (combine_chunks(users.column(name)).to_numpy()[is_user] for name in (HISTORY_START, HISTORY_END))
        is_event = np.zeros(tables[TrainSamplesFile.HISTORY].num_rows, np.bool_)
        is_event[ranges(starts, ends - starts)] = True
        samples = tables[TrainSamplesFile.SAMPLES]
        is_sample = _point_at(samples.column(USER_INDEX), is_user)
        pointed = combine_chunks(samples.column(col.USER_ROW)).to_numpy()
        rows = np.arange(tables[TrainSamplesFile.USER_ROWS].num_rows)
        is_row = np.isin(rows, pointed[is_sample]) & ~np.isin(rows, pointed[~is_sample])
        removed = {
            TrainSamplesFile.USERS: is_user,
            TrainSamplesFile.HISTORY: is_event,
            TrainSamplesFile.SAMPLES: is_sample,
            TrainSamplesFile.USER_ROWS: is_row,
        }
        if (hard := tables.get(TrainSamplesFile.HARD_NEGATIVES)) is not None:
            removed[TrainSamplesFile.HARD_NEGATIVES] = _point_at(hard.column(USER_INDEX), is_user)
        moves = {USER_INDEX: is_user, HISTORY_START: is_event, HISTORY_END: is_event, col.USER_ROW: is_row}
        files: list[tuple[Path, int] | StoredFile] = []
        for name, file in stored.items():
            if name not in removed:
                files.append(file)
            elif self._writes:
                table = tables[name]
                write_arrow(folder / name, table.schema, _remaining(table, removed[TrainSamplesFile(name)], moves))
                files.append((folder / name, file.rows and file.rows - int(is_sample.sum())))
        return files, np.flatnonzero(is_sample) if is_sample.any() else np.flatnonzero(is_user)


def erase_bundle(
    bundles: BundleStore, bundle_id: str, forgotten: Forgotten, found: set[str], *, base: str | None, writes: bool
) -> str:
    """Stores a copy of a bundle without the rows of forgotten users and returns its id. Without such rows, returns the old id.

    Args:
        found: a set to which the hashes of the users found in the bundle are added.
        base: the present id of the whole bundle, if the bundle is a delta.
    """
    fetched = bundles.fetch(bundle_id)
    is_user = find_users(map_arrow(fetched.folder / BundleFile.USER_VECTORS).column(col.USER_ID), forgotten, found)
    delta = fetched.manifest.get("delta")
    if not is_user.any() and (delta is None or delta["base"] == base):
        return bundle_id
    if not writes:
        return "another"
    with bundles.staging() as folder:
        for name in _BUNDLE_FILES if is_user.any() else ():
            if name in fetched.manifest["files"]:
                table = map_arrow(fetched.folder / name)
                write_arrow(folder / name, table.schema, _remaining(table, is_user, {}))
        changes: dict[str, Any] = {"users": fetched.manifest["users"] - int(is_user.sum())}
        changes["was"] = [*fetched.manifest.get("was", ()), bundle_id]
        if delta is not None:
            changes["delta"] = {**delta, "base": base}
        return bundles.store_again(fetched, folder, changes)


def find_users(ids: pa.ChunkedArray, forgotten: Forgotten, found: set[str]) -> Mask:
    """Returns a mask of the ids of forgotten users, and adds their hashes to the set `found`."""
    is_theirs: Mask = forgotten.find(ids)
    if is_theirs.any():
        found.update(forgotten.hash_ids(pc.unique(ids.filter(pa.array(is_theirs)))))
    return is_theirs


def _write_like(path: Path, parquet: pq.ParquetFile, groups: Iterator[pa.Table]) -> None:
    """Writes row groups with another file's compression and encodings. Decodes dictionaries: they would keep removed values."""
    columns = [parquet.metadata.row_group(0).column(place) for place in range(parquet.metadata.num_columns)]
    compression = {column.path_in_schema: column.compression.lower().replace("uncompressed", "none") for column in columns}
    encoded = [column.path_in_schema for column in columns if column.has_dictionary_page]
    schema = stored_schema(parquet.schema_arrow)
    with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=encoded or False) as writer:
        for group in groups:
            writer.write_table(group.cast(schema))


def _point_at(numbers: pa.ChunkedArray, is_gone: Mask) -> Mask:
    """Returns a mask of the row numbers whose row is removed. -1 means no row."""
    pointed: Mask = np.append(is_gone, False)[combine_chunks(numbers).to_numpy()]
    return pointed


def _remaining(table: pa.Table, is_gone: Mask, moves: dict[str, Mask]) -> Iterator[pa.RecordBatch]:
    """Yields the remaining rows batch by batch. The row numbers in the columns of `moves` are renumbered."""
    start = 0
    for batch in table.to_batches():
        kept = batch.filter(pa.array(~is_gone[start : start + batch.num_rows]))
        start += batch.num_rows
        for name in moves.keys() & set(kept.schema.names):
            field, numbers = kept.schema.field(name), kept.column(name).to_numpy()
            before = np.concatenate([[0], np.cumsum(moves[name])])
            moved = np.where(numbers < 0, numbers, numbers - before[numbers])
            kept = kept.set_column(kept.schema.get_field_index(name), field, pa.array(moved, field.type))
        yield kept
