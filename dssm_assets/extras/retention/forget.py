"""Forgetting users: first a list that all readers obey at once, then everything that holds rows of theirs, written again without them.

    1. the list names them: sources that deliver them are filtered, services treat them as unknown
    2. partitions, those of experiments too, and bundles are written again; the vector store follows the served bundle
    3. the list changes again: whatever began to read before this moment is not published
    4. what was written meanwhile is looked at again; replaced files, caches, leftovers of killed runs go; the request ends

A killed request changes nothing twice: the next one ends it as well. The receipt is read from the manifests, which note each erasure.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.core import columns as col
from dssm_assets.core.config.pipeline import FileFormat
from dssm_assets.core.errors import Fault, InputError, PartitionMissingError, PartitionReplacedError, StorageError
from dssm_assets.core.forgotten import Forgotten
from dssm_assets.core.sources.convert import to_ids
from dssm_assets.defs.asset_table import expiring_groups
from dssm_assets.defs.scene import today_in
from dssm_assets.extras.retention import leftovers
from dssm_assets.extras.retention.erasure import Eraser, erase_bundle, write_like
from dssm_assets.installed_extras import tell_served
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.bundles import BundleStore, base_of, open_bundles
from dssm_assets.storage.forgotten_list import new_state
from dssm_assets.storage.local_files import folder_lock, write_atomic
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.overlay import experiment_names
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.table_source import name_table

_MOST_DAYS: Final = 100_000
_LEARNED: Final = ("dssm_model", "channel_weights")
"""Assets that have learned from rows and hold none."""
_COUNTS: Final = (
    "item_activity",
    "item_all_feature",
    "item_features_fg",
    "category_value_counts",
    "numeric_value_counts",
    "feature_binning",
    "feature_counts",
    "feature_config",
    "total_hit_rate",
)
"""Assets that count users, and name none."""


class UnfinishedRequestError(StorageError):
    """Files that nobody can read are still stored; all others are without the users who are forgotten."""


@dataclass
class Receipt:
    """What a request has removed. It has hashes of users, and no ids.

    Attributes:
        users: hashes of the users of the request; of one that was killed, of all users of the list.
        first_day: earlier days are forgotten; "" for none.
        partitions: "asset/ds" -> rows removed, bytes before and after, names of the files that are stored now.
        expired: partitions that were removed as a whole, because of their age.
        bundles: id before -> id now.
        sources: files below the home that were written again.
        untouched_sources: sources that may still have rows of theirs; these are left out whenever they are read.
        removed_files, removed_bytes: replaced files, caches, and leftovers of killed runs.
        learned: models and weights that were fitted on rows of theirs -> the day by which a later one takes its place; null: none does.
        counts: tables of counts over all users, of which theirs are a part, until their days are made again.
    """

    users: list[str]
    first_day: str
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)
    bundles: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    untouched_sources: list[str] = field(default_factory=list)
    removed_files: int = 0
    removed_bytes: int = 0
    learned: dict[str, str | None] = field(default_factory=dict)
    counts: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows that were removed."""
        return sum(one["rows"] for one in self.partitions.values())

    @property
    def model_days(self) -> list[str]:
        """The days whose regular models have learned from rows of theirs, ascending."""
        return sorted(ds for asset, _, ds in (key.rpartition("/") for key in self.learned) if asset == _LEARNED[0])

    def describe(self) -> list[str]:
        """Returns the receipt in short lines."""
        lines = [f"{len(self.users)} users are forgotten; {self.rows:,} rows of theirs in {len(self.partitions)} partitions"]
        lines += [f"days before {self.first_day}: {len(self.expired)} partitions"] if self.first_day else []
        lines += [f"bundle {before}: {now} without them" for before, now in self.bundles.items()]
        lines += [f"source {name} in the home was written again" for name in self.sources]
        lines += [f"source {uri} may have rows of theirs; they are left out when it is read" for uri in self.untouched_sources]
        if self.removed_files:
            lines.append(f"{self.removed_files} replaced and temporary files, {self.removed_bytes / 1e6:.1f} MB")
        until = {key: f"until {ds}" if ds else "until it is made again" for key, ds in self.learned.items()}
        lines += [f"{key} has learned from them {text}" for key, text in until.items()]
        return lines + ([f"counts over all users include theirs: {', '.join(self.counts)}"] if self.counts else [])


def forget(workspace: Workspace, ids: pa.Array, days: int | None = None, *, dry_run: bool = False) -> Receipt:
    """Forgets users, and with `days` all days but so many latest ones; ends a request that was killed, too.

    Args:
        ids: of the users, as text.
        dry_run: only find what would be written again.

    Raises:
        InputError: `days` are fewer than the next evaluation day reads; or a store cannot be reached: the list holds all the same, and
            the next request ends this one.
        UnfinishedRequestError: partitions or the served bundle are damaged; all others are done.
    """
    store, serving = workspace.tables.partitions, open_bundles(workspace.loaded)
    first_day = "" if days is None else _find_first_day(workspace, days)
    if dry_run:
        known = store.forgotten.read()
        salted = replace(known, salt=known.salt or "0" * 16)
        planned = replace(_begin(salted, ids, first_day), ids=None if known.request else ids)
        return _Request(workspace, serving, planned, writes=False).run()
    with folder_lock(layout.bundles_folder(serving.root)) if store.is_local else contextlib.nullcontext():
        was_pending = bool((known := store.forgotten.read()).request)
        if not (was_pending or len(ids) or first_day):
            return Receipt(list(known.hashes), known.first_day)
        forgotten = store.forgotten.change(partial(_begin, ids=ids, first_day=first_day))
        if not was_pending:
            forgotten = replace(forgotten, ids=ids)
        return _Request(workspace, serving, forgotten, writes=True).run()


def on_run_start(workspace: Workspace) -> None:
    """Ends a request that was killed, or waits for one that is carried out; then cleans the store when that is due."""
    if workspace.tables.partitions.forgotten.read().request:
        workspace.log("a request to forget users has not ended; this run begins after it")
        try:
            receipt = forget(workspace, pa.array([], pa.string()))
            if receipt.partitions or receipt.bundles:  # else another process has ended it
                workspace.log(f"receipt: {write_receipt(workspace, receipt)}")
        except UnfinishedRequestError as error:  # this run may be the one that replaces what nobody can read
            workspace.log(str(error))
    leftovers.clean_when_due(workspace)


def _begin(known: Forgotten, ids: pa.Array, first_day: str) -> Forgotten:
    request, hashes = known.request or secrets.token_hex(8), known.adding(ids)
    return replace(known, hashes=hashes, first_day=max(known.first_day, first_day), request=request, state=new_state())


def _find_first_day(workspace: Workspace, days: int) -> str:
    config, store = workspace.config, workspace.tables.partitions
    least = config.window.days + config.evaluation.span_days + 1
    if not least <= days <= _MOST_DAYS:
        expected = f"{least} days, which the next evaluation day reads, to {_MOST_DAYS:,}"
        raise InputError(Fault("--older-than", expected, str(days), "choose others, or shorten window.days"))
    today = today_in(config.calendar.timezone).isoformat()
    return leftovers.find_first_kept([ds for ds in reversed(store.days("behavior")) if ds <= today], days)


class _Request:
    """One request, from the list to the receipt."""

    def __init__(self, workspace: Workspace, bundles: BundleStore, forgotten: Forgotten, *, writes: bool) -> None:
        self._workspace, self._bundles, self._forgotten, self._writes = workspace, bundles, forgotten, writes
        store = workspace.tables.partitions
        experiments = (leftovers.open_experiment_store(store, name) for name in experiment_names(store))
        self._stores = {"": store} | {f"{one.root.rpartition('/')[2]}/": one for one in experiments}
        self._erasers = {name: Eraser(one, forgotten, writes=writes) for name, one in self._stores.items()}
        self._seen: set[str] = set()
        self._faults: list[str] = []
        users = forgotten.hashes if forgotten.ids is None else forgotten.hash_ids(forgotten.ids)
        self._receipt = Receipt(sorted(users), forgotten.first_day)

    def run(self) -> Receipt:
        """Carries the request out; returns its receipt."""
        self._erase()
        self._erase_sources()
        if self._writes:
            self._change_list(state=new_state())
            self._faults.clear()
            self._erase()
            self._remove_files()
        if self._faults:
            got, remedy = "; ".join(self._faults[:3]), "materialize or publish them again, then run dssm-assets forget"
            raise UnfinishedRequestError(str(Fault("users to be forgotten", "files that can be read", got, remedy)))
        self._name_learned()
        if self._writes:
            self._change_list(request="")
        return self._receipt

    def _erase(self) -> None:
        while self._erase_partitions() and self._writes:
            pass
        self._erase_bundles()

    def _erase_partitions(self) -> bool:
        """Looks at every partition that it has not seen in its current content; returns whether any was written again or must be looked at again."""
        has_more = False
        tables = [(prefix, store, asset) for prefix, store in self._stores.items() for asset in store.assets()]
        start = time.perf_counter()
        for number, (prefix, store, asset) in enumerate(tables):
            rows = self._receipt.rows
            for ds in _list_days(store, asset):
                with store.locked(asset, ds):  # whoever publishes it has done so
                    manifest = store.find(asset, ds)
                if manifest is None:
                    continue
                if ds < self._forgotten.first_day:
                    self._receipt.expired.append(f"{prefix}{manifest.key}")
                    if self._writes:
                        store.remove(asset, ds)
                    continue
                has_more |= manifest.user_column is not None and self._erase_partition(prefix, manifest)
            if self._receipt.rows > rows:
                left = (time.perf_counter() - start) / (number + 1) * (len(tables) - number - 1)
                done = f"{number + 1} of {len(tables)} tables, {self._receipt.rows:,} rows so far, ETA {left:.0f} s"
                self._workspace.log(f"{prefix}{asset}: {done}")
        return has_more

    def _erase_partition(self, prefix: str, manifest: Manifest) -> bool:
        content = f"{prefix}{manifest.key} {manifest.digest}"
        if content in self._seen:
            return False
        try:
            erased = self._erasers[prefix].erase(manifest)
        except PartitionReplacedError:
            return True
        except (StorageError, pa.ArrowInvalid) as error:
            self._faults.append(f"{prefix}{manifest.key}: {error}")
            return False
        self._seen.add(content if erased is None else f"{prefix}{erased.key} {erased.digest}")
        self._note(prefix, erased or manifest)
        return erased is not None

    def _note(self, prefix: str, manifest: Manifest) -> None:
        of_request = [one for one in manifest.erasures if one.request == self._forgotten.request]
        if of_request:
            self._receipt.partitions[f"{prefix}{manifest.key}"] = {
                "rows": sum(one.count for one in of_request),
                "bytes_before": of_request[0].bytes,
                "bytes": manifest.size_bytes,
                "files": [file.path for file in manifest.files],
            }

    def _erase_bundles(self) -> None:
        """Stores the bundles again, whole ones before their deltas, and replaces the pointer once; those of forgotten days go."""
        pointer = self._bundles.pointer()
        if pointer is None:
            return
        names: dict[str, str] = {}
        old, needed = [], self._find_needed(pointer.bundle_id)
        for bundle_id in sorted(pointer.stored, key=lambda each: len(self._find_needed(each))):
            try:
                manifest = self._bundles.manifest(bundle_id)
                if manifest["ds"] < self._forgotten.first_day and bundle_id not in needed:
                    old.append(bundle_id)
                elif bundle_id not in self._seen:
                    base = base_of(manifest)
                    now = base and names.get(base, base)
                    names[bundle_id] = erase_bundle(self._bundles, bundle_id, self._forgotten, now, writes=self._writes)
                    self._seen.add(names[bundle_id])
            except PartitionMissingError:  # removed by hand, or just now
                continue
            except StorageError as error:  # damaged, or not signed: nobody can go back to it
                if bundle_id == pointer.bundle_id:
                    self._faults.append(str(error))
                else:
                    old.append(bundle_id)
        names = {before: now for before, now in names.items() if before != now}
        self._receipt.bundles |= names
        self._receipt.expired += [f"bundle {bundle_id}" for bundle_id in old]
        if not self._writes:
            return
        if names or old:
            self._bundles.replace_pointer(lambda found: (found or pointer).renamed(names).without(old))
        for bundle_id in (*names, *old):
            self._bundles.remove(bundle_id)
        tell_served(self._workspace.loaded, self._workspace.log)

    def _find_needed(self, bundle_id: str) -> set[str]:
        """Returns a bundle, and the whole one that it refreshes."""
        with contextlib.suppress(PartitionMissingError, StorageError):
            return {bundle_id, base_of(self._bundles.manifest(bundle_id)) or bundle_id}
        return {bundle_id}

    def _erase_sources(self) -> None:
        """Writes parquet files of source tables below the home again; others are the user's own, and are filtered when they are read."""
        tables, home = self._workspace.config.tables, self._workspace.loaded.home
        for name, table in (("user_table", tables.user), ("behavior_table", tables.behavior)):
            if table is None:
                continue
            place = urlsplit(table.uri)
            path = Path(unquote(place.path) if place.scheme in ("", "file") else "")
            is_ours = table.format is FileFormat.PARQUET and path.is_absolute() and path.is_relative_to(home)
            if not is_ours:
                self._receipt.untouched_sources.append(name_table(table, name))
            for file in sorted(path.rglob("*.parquet") if path.is_dir() else [path]) if is_ours else ():
                if _erase_source(file, table.columns.get(col.USER_ID, col.USER_ID), self._forgotten, writes=self._writes):
                    self._receipt.sources.append(str(file.relative_to(home)))

    def _change_list(self, **changes: Any) -> None:
        """Changes the list, unless another request was added to this one, which then ends both."""
        done = (self._forgotten.hashes, self._forgotten.first_day)
        self._workspace.tables.partitions.forgotten.change(
            lambda now: replace(now, **changes) if (now.hashes, now.first_day) == done else now
        )

    def _remove_files(self) -> None:
        """Removes replaced files, leftovers, caches and bundles that no pointer lists: what may hold rows and that nobody may read."""
        workspace, store, now = self._workspace, self._stores[""], time.time()
        # What was begun after the change of the list stays: by the clock of the store.
        changed = store.fs.modified(store.forgotten.path).timestamp()
        for _ in range(2):  # the snapshot that the first one replaces still lists files
            kept = leftovers.clean_extras(workspace, time.time())
        found = (
            leftovers.find_bundles(self._bundles, changed),
            leftovers.find_temporary([workspace.loaded.scratch], workspace.artifacts.cache, now),
            leftovers.find_in_store(store, changed, kept),
        )
        shutil.rmtree(workspace.artifacts.cache, ignore_errors=True)
        # Whoever writes a table without users is not refused, and its files are listed only when all are stored.
        tables = ((one, asset) for one in self._stores.values() for asset in one.assets())
        others = tuple(f"{layout.asset_folder(one.root, asset)}/" for one, asset in tables if _is_of_nobody(one, asset))
        for leftover in itertools.chain.from_iterable(found):
            if leftover.path.startswith(others):
                continue
            leftover.remove()
            self._receipt.removed_files += 1
            self._receipt.removed_bytes += leftover.bytes

    def _name_learned(self) -> None:
        keep_days, groups = self._workspace.config.storage.keep_days, expiring_groups()
        for prefix, store in self._stores.items():
            for asset in _LEARNED:
                days = store.days(asset)
                for ds in days:
                    kept = 1 if ds == days[-1] and not prefix else keep_days.get(groups.get(asset, ""))
                    self._receipt.learned[f"{prefix}{asset}/{ds}"] = None if kept is None else day_before(ds, -kept)
        if (pointer := self._bundles.pointer()) is not None:  # with towers, neighbors and popularity
            until = {pointer.bundle_id: day_before(pointer.ds, -1)}
            self._receipt.learned |= {f"bundle {bundle_id}": until.get(bundle_id) for bundle_id in pointer.stored}
        self._receipt.counts = [asset for asset in _COUNTS if self._stores[""].days(asset)]


def _list_days(store: PartitionStore, asset: str) -> list[str]:
    """Returns the days of an asset that have a folder, also those that are not published yet."""
    try:
        names = [str(path) for path in store.fs.ls(layout.asset_folder(store.root, asset), detail=False)]
    except FileNotFoundError:
        return []
    return sorted(ds for name in names if (ds := layout.ds_of_folder(name)) is not None)


def _is_of_nobody(store: PartitionStore, asset: str) -> bool:
    """Returns whether an asset is known to hold no rows of users."""
    days = store.days(asset)
    return bool(days) and (found := store.find(asset, days[-1])) is not None and found.user_column is None


def _erase_source(path: Path, column: str, forgotten: Forgotten, *, writes: bool) -> bool:
    """Writes a parquet file again without rows of forgotten users; returns whether it has, or had, any."""
    new = path.with_name(f"._{path.name}")
    with pq.ParquetFile(path) as parquet:
        is_theirs: Callable[[pa.Table], Any] = lambda rows: forgotten.find(to_ids(rows.column(column), path.name))  # noqa: E731
        groups = range(parquet.num_row_groups)
        if not any(is_theirs(parquet.read_row_group(group, [column])).any() for group in groups):
            return False
        if writes:
            rows = (parquet.read_row_group(group) for group in groups)
            write_like(new, parquet, (table.filter(pa.array(~is_theirs(table))) for table in rows))
    if writes:
        new.replace(path)
    return True


def read_user_ids(path: Path | None) -> pa.Array:
    """Returns the ids of a file with one per line, as text; empty lines are left out.

    Raises:
        InputError: it cannot be read, or has no id.
    """
    if path is None:
        return pa.array([], pa.string())
    where, remedy = f"user ids {path}", "write one id per line, in UTF-8"
    try:
        ids = sorted({line.rstrip("\r\n") for line in path.read_text(encoding="utf-8-sig").split("\n")} - {""})
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where, "a readable text", type(error).__name__, remedy)) from error
    if not ids:
        raise InputError(Fault(where, "at least one id", "none", remedy))
    return pa.array(ids, pa.string())


def write_receipt(workspace: Workspace, receipt: Receipt) -> Path:
    """Writes a receipt into the home; returns its path."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = workspace.loaded.home / "receipts" / f"forget-{moment}-{secrets.token_hex(3)}.json"
    write_atomic(path, [(json.dumps(asdict(receipt), indent=1) + "\n").encode()])
    return path
