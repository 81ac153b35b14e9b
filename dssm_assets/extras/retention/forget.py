"""Forgets users: puts them on a list that every reader obeys at once, then rewrites all stored data without their rows.

    1. The list names them. From now on sources drop their rows, and services treat them as unknown.
    2. Partitions (also of experiments) and bundles are rewritten. The vector store follows the served bundle.
    3. The list changes again. Work that began before this moment cannot be published.
    4. Partitions written meanwhile are checked. Replaced files, caches and leftovers are removed. The request ends.

The next request finishes a killed one and changes nothing twice. If a vector store cannot be reached, everything else is done,
and the next request finishes the rest. The receipt (`receipt.py`) is read from the manifests, which record each erasure.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import Fault, InputError, PartitionMissingError, PartitionReplacedError, StorageError
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.defs.asset_table import expiring_groups
from dssm_assets.defs.scene import today_in
from dssm_assets.extras.retention import leftovers
from dssm_assets.extras.retention.erasure import Eraser, erase_bundle
from dssm_assets.extras.retention.forgotten import Forgotten, change_list, read_list
from dssm_assets.extras.retention.lineage import Lineage
from dssm_assets.extras.retention.receipt import Receipt, write_receipt
from dssm_assets.installed_extras import load_all, tell_served
from dssm_assets.service.bundle.bundle_store import BundleStore, base_of, open_bundles
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage import layout
from dssm_assets.storage.local_files import folder_lock
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.sources.table_source import name_table

_MOST_DAYS: Final = 100_000
_LEARNED: Final = ("dssm_model", "channel_weights")
"""Assets that are fitted on rows of users but hold no such rows."""
_VALUES: Final = {
    "category_value_counts": Kind.CATEGORICAL,
    "numeric_value_counts": Kind.NUMERIC,
    "feature_binning": Kind.NUMERIC,
    "feature_counts": Kind.CATEGORICAL,
    "feature_config": Kind.NUMERIC,
}
"""Asset -> the kind of features whose values, or their hashes, it holds for all users. Bundles hold both kinds."""
_MOST_FAULTS: Final = 20
_RETRY_SECONDS: Final = 3600.0
"""Runs try again so many seconds after a failed try, because a try reads every manifest and asks each store."""


class UnfinishedRequestError(StorageError):
    """A request to forget users could not be finished. Its receipt lists the faults."""


def forget(
    workspace: Workspace, ids: pa.Array, days: int | None = None, *, dry_run: bool = False, rest_seconds: float = 0
) -> Receipt:
    """Forgets users, and finishes an earlier request that has not ended.

    If a vector store cannot be reached, everything else is done, and the receipt lists a fault (see `check_ended`). The list
    stays in force, and the next request finishes this one.

    Args:
        ids: ids of the users, as text.
        days: if given, also removes all days but the latest `days`.
        dry_run: changes nothing, and returns the receipt of a plan.
        rest_seconds: does nothing if a try failed less than so many seconds ago.

    Raises:
        InputError: `days` are fewer than the next evaluation day reads, or the store cannot be reached.
        SignatureError: stored bundles are signed, but no key can sign them again. Nothing is changed.
    """
    store, serving = workspace.tables.partitions, open_bundles(workspace.loaded)
    serving.check_can_sign()
    first_day = "" if days is None else _find_first_day(workspace, days)
    if dry_run:
        known = read_list(store.hidden)
        planned = _begin(replace(known, salt=known.salt or "0" * 16), ids, first_day)
        return _Request(workspace, serving, known, planned, writes=False).run(ids)
    with folder_lock(layout.bundles_folder(serving.root)) if store.is_local else contextlib.nullcontext():
        known = read_list(store.hidden)
        if abs(time.time() - known.tried_at) < rest_seconds or not (known.request or len(ids) or first_day):
            return Receipt(len(known.hashes), known.first_day)
        forgotten = change_list(store.hidden, partial(_begin, ids=ids, first_day=first_day))
        return _Request(workspace, serving, known, forgotten, writes=True).run(ids)


def check_ended(receipt: Receipt) -> None:
    """Raises an UnfinishedRequestError if a request has faults."""
    if receipt.faults:
        got = "; ".join(receipt.faults[:3])
        remedy = "remove these faults, then run dssm-assets forget; until then runs try to finish the request once an hour"
        raise UnfinishedRequestError(str(Fault("users to be forgotten", "a request that can be finished", got, remedy)))


def on_run_start(workspace: Workspace) -> None:
    """Continues an unfinished request at most once an hour, or waits for a running one. Then cleans the store if it is due.

    It never raises: the list stays in force anyway, and this run may be the one that repairs an unreadable partition.
    """
    try:
        if read_list(workspace.tables.partitions.hidden).request:
            workspace.log("a request to forget users has not ended; runs try it once an hour, dssm-assets forget at once")
            receipt = forget(workspace, pa.array([], pa.string()), rest_seconds=_RETRY_SECONDS)
            # Otherwise another process has finished the request, or it cannot be finished yet.
            if receipt.bundles or receipt.expired or (receipt.partitions and not receipt.faults):
                workspace.log(f"receipt: {write_receipt(workspace, receipt)}")
            check_ended(receipt)
    except Exception as error:  # an optional neighbour of the store may raise anything
        workspace.log(f"the request to forget users goes on later, and this run begins: {type(error).__name__}: {error}")
    leftovers.clean_when_due(workspace)


def _begin(known: Forgotten, ids: pa.Array, first_day: str) -> Forgotten:
    """Adds a request to the list. If an earlier one has not ended, the request searches for all users of the list, not only its own."""
    hashes, first_day, request = known.adding(ids), max(known.first_day, first_day), known.request or secrets.token_hex(8)
    wanted = None if known.request else ids
    begun = replace(known, hashes=hashes, first_day=first_day, request=request, tried_at=0.0, ids=wanted)
    return begun if begun.state == _name_erased(begun) else replace(begun, state=secrets.token_hex(8))


def _name_erased(forgotten: Forgotten) -> str:
    """Returns the state of a list whose rows have been removed once. Later tries keep it, so that they do not stop other runs."""
    return f"{forgotten.request}-{len(forgotten.hashes)}-{forgotten.first_day}"


def _find_first_day(workspace: Workspace, days: int) -> str:
    config, store = workspace.config, workspace.tables.partitions
    least = config.window.days + config.evaluation.span_days + 1
    if not least <= days <= _MOST_DAYS:
        expected = f"{least} days, which the next evaluation day reads, to {_MOST_DAYS:,}"
        raise InputError(Fault("--older-than", expected, str(days), "choose others, or shorten window.days"))
    today = today_in(config.calendar.timezone).isoformat()
    return leftovers.find_first_kept([ds for ds in reversed(store.days("behavior")) if ds <= today], days)


class _Request:
    def __init__(
        self, workspace: Workspace, bundles: BundleStore, known: Forgotten, forgotten: Forgotten, *, writes: bool
    ) -> None:
        """Opens the stores. `known` is the list before the request, `forgotten` the list with the users of the request."""
        self._workspace, self._bundles, self._known, self._writes = workspace, bundles, known, writes
        self._forgotten = forgotten
        store = workspace.tables.partitions
        self._stores = {"": store} | leftovers.open_experiments(store)
        self._found: set[str] = set()
        self._erasers = {name: Eraser(one, forgotten, self._found, writes=writes) for name, one in self._stores.items()}
        self._erased: dict[str, Manifest] = {}
        self._seen: set[str] = set()
        self._faults: list[str] = []
        users = len(forgotten.hashes if forgotten.ids is None else forgotten.ids)
        has_reports = workspace.config.evaluation.show_people and bool(workspace.tables.partitions.days("total_hit_rate"))
        self._receipt = Receipt(users, forgotten.first_day, is_planned=not writes, has_reports=has_reports)

    def run(self, ids: pa.Array) -> Receipt:
        """Carries the request out and returns its receipt. `ids` are the ids given by the caller, which the receipt counts."""
        self._erase()
        if self._writes:
            if self._forgotten.state != (erased := _name_erased(self._forgotten)):
                self._change_list(state=erased)
                self._faults.clear()
                self._erase()
            with self._note_faults("files that nobody needs"):
                self._remove_files()
        with self._note_faults("the list of data that stay"):
            self._name_rest()
        for extra in load_all("unreached"):
            with self._note_faults(extra.__name__):
                self._receipt.elsewhere += extra.list_unreached(self._workspace)
        if self._faults:
            more = len(self._faults) - _MOST_FAULTS
            self._receipt.faults = self._faults[:_MOST_FAULTS] + ([f"and {more} more"] if more > 0 else [])
        if self._writes:
            self._change_list(**({"tried_at": time.time()} if self._faults else {"request": ""}))
        self._count_ids(ids)
        return self._receipt

    @contextlib.contextmanager
    def _note_faults(self, where: str) -> Iterator[None]:
        """Records the error of a block as a fault, so that the rest of the request is still done."""
        try:
            yield
        except Exception as error:
            self._faults.append(f"{where}: {type(error).__name__}: {' '.join(str(error).split())}")

    def _count_ids(self, ids: pa.Array) -> None:
        """Counts the ids listed before, and the new ids without any row. The latter is unknown if a table was not read."""
        hashes = set(self._forgotten.hash_ids(ids)) if len(ids) else set()
        self._receipt.ids, listed = len(ids), hashes & set(self._known.hashes)
        self._receipt.already_listed = len(listed)
        is_unknown = self._faults or self._receipt.expired
        self._receipt.without_rows = 0 if is_unknown else len(hashes - listed - self._found)

    def _erase(self) -> None:
        while self._erase_partitions() and self._writes:
            pass
        with self._note_faults("bundles"):
            self._erase_bundles()
        if self._writes:
            with self._note_faults("stores that follow the served bundle"):
                tell_served(self._workspace.loaded, self._workspace.log)

    def _erase_partitions(self) -> bool:
        """Erases in every partition whose current content it has not seen. Returns True if another pass is needed."""
        has_more = False
        tables = [(prefix, store, asset) for prefix, store in self._stores.items() for asset in store.assets()]
        start = time.perf_counter()
        for number, (prefix, store, asset) in enumerate(tables):
            rows = self._receipt.rows
            with self._note_faults(f"{prefix}{asset}"):
                for ds in _list_days(store, asset):
                    with self._note_faults(f"{prefix}{asset}/{ds}"):
                        has_more |= self._look_at(prefix, asset, ds)
            if self._receipt.rows > rows:
                left = (time.perf_counter() - start) / (number + 1) * (len(tables) - number - 1)
                done = f"{number + 1} of {len(tables)} tables, {self._receipt.rows:,} rows so far, ETA {left:.0f} s"
                self._workspace.log(f"{prefix}{asset}: {done}")
        return has_more

    def _look_at(self, prefix: str, asset: str, ds: str) -> bool:
        """Removes a partition of a forgotten day, or the users' rows in it. Returns whether it must be looked at again."""
        store = self._stores[prefix]
        with store.locked(asset, ds):  # waits until a running publication of it has ended
            manifest = store.find(asset, ds)
        if manifest is None:
            return False
        if ds < self._forgotten.first_day:
            if self._writes:
                store.remove(asset, ds)
            self._receipt.expired.append(f"{prefix}{manifest.key}")
            return False
        content = f"{prefix}{manifest.key} {manifest.digest}"
        if manifest.user_column is None or content in self._seen:
            return False
        try:
            erased = self._erasers[prefix].erase(manifest)
        except PartitionReplacedError:
            return True
        self._seen.add(content if erased is None else f"{prefix}{erased.key} {erased.digest}")
        self._note(prefix, erased or manifest)
        return erased is not None

    def _note(self, prefix: str, manifest: Manifest) -> None:
        if of_request := [one for one in manifest.erasures if one.request == self._forgotten.request]:
            self._erased[f"{prefix}{manifest.key}"] = manifest
            self._receipt.partitions[f"{prefix}{manifest.key}"] = {
                "rows": sum(one.count for one in of_request),
                "bytes_before": of_request[0].bytes,
                "bytes": manifest.size_bytes,
                "files": [file.path for file in manifest.files],
            }

    def _erase_bundles(self) -> None:
        """Rewrites the bundles, whole ones before their deltas, removes those of forgotten days, and replaces the pointer once."""
        pointer = self._bundles.pointer()
        if pointer is None:
            return
        names, damaged = dict[str, str](), list[str]()
        old, needed = [], self._find_needed(pointer.bundle_id)
        for bundle_id in sorted(pointer.stored, key=lambda each: len(self._find_needed(each))):
            try:
                manifest = self._bundles.manifest(bundle_id)
                if manifest["ds"] < self._forgotten.first_day and bundle_id not in needed:
                    old.append(bundle_id)
                elif bundle_id not in self._seen:
                    base = (whole := base_of(manifest)) and names.get(whole, whole)
                    now = erase_bundle(self._bundles, bundle_id, self._forgotten, self._found, base=base, writes=self._writes)
                    self._seen.add(now)
                    if now != bundle_id:
                        names[bundle_id] = now
            except PartitionMissingError:  # removed by hand, or just now
                continue
            except StorageError as error:  # damaged or not signed, so no service can roll back to it
                if bundle_id == pointer.bundle_id:
                    self._faults.append(str(error))
                else:
                    damaged.append(bundle_id)
        self._receipt.bundles |= names
        self._receipt.expired += [f"bundle {bundle_id}" for bundle_id in old]
        self._receipt.damaged += damaged
        if self._writes and (gone := [*names, *old, *damaged]):
            self._bundles.replace_pointer(lambda found: (found or pointer).renamed(names).without([*old, *damaged]))
            for bundle_id in gone:
                self._bundles.remove(bundle_id)

    def _find_needed(self, bundle_id: str) -> set[str]:
        with contextlib.suppress(PartitionMissingError, StorageError):
            return {bundle_id, base_of(self._bundles.manifest(bundle_id)) or bundle_id}
        return {bundle_id}

    def _change_list(self, **changes: Any) -> None:
        """Changes the list, unless another request was added meanwhile: that request then finishes both."""
        done = (self._forgotten.hashes, self._forgotten.first_day)
        change_list(
            self._workspace.tables.partitions.hidden,
            lambda now: replace(now, **changes) if (now.hashes, now.first_day) == done else now,
        )

    def _remove_files(self) -> None:
        """Removes replaced files, leftovers, caches and unlisted bundles: nobody reads them, but they may hold the users' rows."""
        workspace, store, now = self._workspace, self._stores[""], time.time()
        # Files begun after the list changed stay. The time is taken from the clock of the store.
        changed = store.fs.modified(store.hidden.path).timestamp()
        for _ in range(3):  # each pass expires the snapshot that the previous one replaced; two still list removed files
            kept, faults = leftovers.clean_extras(workspace, time.time())
        self._faults += faults  # files that an unreachable extra still needs are removed all the same
        found = (
            leftovers.find_bundles(self._bundles, changed),
            leftovers.find_temporary([workspace.loaded.scratch], workspace.artifacts.cache, now),
            leftovers.find_in_store(store, changed, kept),
        )
        shutil.rmtree(workspace.artifacts.cache, ignore_errors=True)
        # Tables without users may still be published, and their files are listed by a manifest only at the end.
        tables = ((one, asset) for one in self._stores.values() for asset in one.assets())
        others = tuple(f"{layout.asset_folder(one.root, asset)}/" for one, asset in tables if _is_of_nobody(one, asset))
        for leftover in itertools.chain.from_iterable(found):
            if leftover.path.startswith(others):
                continue
            leftover.remove()
            self._receipt.removed_files += 1
            self._receipt.removed_bytes += leftover.bytes

    def _name_rest(self) -> None:
        tables = self._workspace.config.tables
        named: dict[str, SourceTable | None] = {"user_table": tables.user, "behavior_table": tables.behavior}
        self._receipt.sources = [name_table(table, name) for name, table in named.items() if table is not None]
        lineage = Lineage(self._stores, self._erased, self._forgotten.request, self._forgotten.first_day)
        days: dict[str, list[str]] = {}
        for key in lineage.list_made_from_them() if self._had_rows() else ():
            name, _, ds = key.rpartition("/")
            days.setdefault(name, []).append(ds)
            if name.rpartition("/")[2] in _LEARNED:
                self._receipt.learned[key] = self._find_removal(name, ds)
        self._name_bundles(lineage)
        for name, of_name in days.items():
            asset = name.rpartition("/")[2]
            if asset in _VALUES:
                self._note_values(_VALUES[asset], " to ".join((f"{name} {of_name[0]}", *of_name[1:][-1:])))
            elif asset not in _LEARNED:
                self._receipt.counts.append(name)
        if self._forgotten.first_day:
            self._receipt.reaching_back[:0] = lineage.list_reaching_back()

    def _had_rows(self) -> bool:
        """Returns whether tables had, or may have had, rows of the forgotten users.

        Expired partitions and bundles are removed unread, so they may have had some.
        """
        return bool(self._receipt.partitions or (self._receipt.users and self._receipt.expired))

    def _name_bundles(self, lineage: Lineage) -> None:
        for bundle_id in () if (pointer := self._bundles.pointer()) is None else pointer.stored:
            inputs = self._bundles.manifest(bundle_id)["inputs"]
            if self._had_rows() and lineage.had_rows(inputs):
                self._receipt.learned[f"bundle {bundle_id}"] = None
                for kind in Kind:
                    self._note_values(kind, f"bundle {bundle_id}")
            if self._forgotten.first_day and lineage.reach_back(inputs):
                self._receipt.reaching_back.append(f"bundle {bundle_id}")

    def _note_values(self, kind: Kind, name: str) -> None:
        spec = self._workspace.fg_spec
        of_users = (*spec.features_of_side(Side.USER), *spec.features_of_side(Side.CONTEXT))
        if features := sorted(feature.name for feature in of_users if feature.kind is kind):
            self._receipt.features[kind] = features
            self._receipt.values.setdefault(kind, []).append(name)

    def _find_removal(self, name: str, ds: str) -> str | None:
        """Returns the day from which a cleanup removes a partition. None: no cleanup does (experiments, or a calendar that ends)."""
        kept = self._workspace.config.storage.keep_days.get(expiring_groups().get(name, ""))
        end = self._workspace.config.calendar.end
        day = None if kept is None else day_before(ds, -kept)
        return day if day is not None and (end is None or day <= end.isoformat()) else None


def _list_days(store: PartitionStore, asset: str) -> list[str]:
    """Returns the days for which an asset has a folder, even if nothing is published in it."""
    try:
        names = [str(path) for path in store.fs.ls(layout.asset_folder(store.root, asset), detail=False)]  # some may be links
    except FileNotFoundError:
        return []
    return sorted(ds for name in names if (ds := layout.ds_of_folder(name)) is not None)


def _is_of_nobody(store: PartitionStore, asset: str) -> bool:
    days = store.days(asset)
    return bool(days) and (found := store.find(asset, days[-1])) is not None and found.user_column is None
