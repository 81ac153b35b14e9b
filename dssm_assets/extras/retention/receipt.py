"""The receipt of a request to forget users: the removed data, and the data that stay, with reasons. It counts users and holds no ids or hashes."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dssm_assets.core.features.expressions import Kind
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.local_files import write_atomic


@dataclass
class Receipt:
    """The result of a request: the data that are removed (with `is_planned`: would be removed), and the data that stay.

    Attributes:
        users: number of users in the request. If it finishes an earlier request, the number in the whole list.
        ids: number of ids that the caller gave.
        already_listed: number of these ids that were on the list before.
        without_rows: number of the other ids without a row in any table or bundle. 0 if some data were not read (`expired`, faults).
        first_day: earlier days are forgotten. "": no day is.
        partitions: "asset/ds" -> rows removed, bytes before and after, names of the files that are stored now.
        expired: partitions and bundles removed whole because of their age.
        damaged: bundles removed because they are unreadable or not signed by this key.
        bundles: id before -> id now.
        removed_files, removed_bytes: replaced files, caches, and leftovers of killed runs.
        sources: source tables that may still have the users' rows. We drop these at every reading.
        learned: models, weights and bundles that were, or may have been, fitted on the users' rows -> the day from which
            `storage.keep_days` removes each. None: it stays until it is made again.
        features: kind of feature -> the user features of that kind.
        values: kind of feature -> the tables and bundles that count the values of these features over all users. The values are
            numbers, or unsalted hashes of categories.
        counts: other tables made from the users' rows. They name no user.
        reaching_back: assets and bundles also made from days before `first_day`.
        elsewhere: stores and catalogs that may hold the users' rows, but are not in the configuration any more.
        has_reports: whether reports of runs show people (`evaluation.show_people`).
        faults: the parts that failed. If there are any, the request has not ended.
    """

    users: int
    first_day: str
    is_planned: bool = False
    ids: int = 0
    already_listed: int = 0
    without_rows: int = 0
    partitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    expired: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    bundles: dict[str, str] = field(default_factory=dict)
    removed_files: int = 0
    removed_bytes: int = 0
    sources: list[str] = field(default_factory=list)
    learned: dict[str, str | None] = field(default_factory=dict)
    features: dict[Kind, list[str]] = field(default_factory=dict)
    values: dict[Kind, list[str]] = field(default_factory=dict)
    counts: list[str] = field(default_factory=list)
    reaching_back: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    has_reports: bool = False
    faults: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(one["rows"] for one in self.partitions.values())

    @property
    def model_days(self) -> list[str]:
        """Returns the days of the regular models of `learned`, ascending."""
        return sorted(key.rpartition("/")[2] for key in self.learned if key.startswith("dssm_model/"))

    def describe(self) -> list[str]:
        are, would = ("would be", "would be ") if self.is_planned else ("are", "")
        lines = [f"{self.users:,} users {are} forgotten; {self.rows:,} rows of theirs in {len(self.partitions):,} partitions"]
        if self.already_listed:
            lines.append(f"{self.already_listed:,} of {self.ids:,} ids were on the list before")
        if self.without_rows:
            listed = "would be on the list" if self.is_planned else "are on the list"
            rest = f"they {listed} all the same: their rows are dropped if a source delivers any later"
            lines.append(f"{self.without_rows:,} of {self.ids:,} ids have no row anywhere in this home; {rest}")
        if self.expired:
            lines.append(f"days before {self.first_day}: {len(self.expired)} partitions and bundles {would}removed")
        lines += [f"bundle {one}, damaged or not signed by this key, {would}removed" for one in self.damaged]
        lines += [f"bundle {before}: {now} without them" for before, now in self.bundles.items()]
        if self.removed_files:
            lines.append(
                f"{self.removed_files} replaced and temporary files, {self.removed_bytes / 1e6:.1f} MB, {would}removed"
            )
        return lines + self._describe_rest()

    def _describe_rest(self) -> list[str]:
        lines = [f"source {uri} may still have their rows, which are dropped at every reading" for uri in self.sources]
        for name, day in self.learned.items():
            end = f"until it is made again{f', or storage.keep_days removes it, from {day} on' if day else ''}"
            if name.startswith("bundle "):
                end = "until later bundles take its place"
            lines.append(f"{name} has, or may have, learned from them, {end}")
        for kind, names in self.values.items():
            what = "numbers" if kind is Kind.NUMERIC else "unsalted hashes"
            features = ", ".join(self.features[kind])
            lines.append(
                f"{what} of their features {features}, counted over all users, stay until made again in {', '.join(names)}"
            )
        if self.counts:
            lines.append(f"made from all users' rows, also theirs, without naming a user: {', '.join(self.counts)}")
        if self.reaching_back:
            from_days = f"also made from days before {self.first_day}, and may hold their events until made again"
            lines.append(f"{from_days}: {', '.join(self.reaching_back)}")
        lines += [
            f"{place} may still have their rows, but this configuration does not reach it: remove them there"
            for place in self.elsewhere
        ]
        if self.has_reports:
            reports = "Dagster's log of runs keeps reports of total_hit_rate, each with five people (evaluation.show_people)"
            lines.append(f"{reports}: if these are among them, delete those runs there")
        lines += [f"not done: {fault}" for fault in self.faults]
        if self.faults and not self.is_planned:
            lines.append("the request has not ended: dssm-assets forget, or a run an hour later, goes on with it")
        return lines


def write_receipt(workspace: Workspace, receipt: Receipt) -> Path:
    """Writes a receipt into the folder `receipts` of the home and returns its path."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = workspace.loaded.home / "receipts" / f"forget-{moment}-{secrets.token_hex(3)}.json"
    write_atomic(path, [(json.dumps(asdict(receipt), indent=1) + "\n").encode()])
    return path
