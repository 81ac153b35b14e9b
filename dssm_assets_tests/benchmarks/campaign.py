"""What happens when writers race, writers are killed, the object store fails, and input is hostile.

    python -m dssm_assets_tests.benchmarks.campaign                     # everything, about fifteen minutes
    python -m dssm_assets_tests.benchmarks.campaign --seconds inf       # 1,000 rounds of each race, however long they take
    python -m dssm_assets_tests.benchmarks.campaign --only races_disk kills --scale 0.1

Killed commands are tried by the default suite (`deploy/test_run_owner.py`).
Each attempt ends with a check of every stored file against its manifest. The last line of the table is the sum; the exit status
is 1 if anything failed. `docs/reliability.md` has the figures of a full run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dssm_assets.core.errors import DssmError
from dssm_assets.extras.retention.leftovers import find_bundles, find_expired, find_in_store, find_temporary
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.local_files import find_own_folder
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.benchmarks.faulty_proxy import faulty_proxy
from dssm_assets_tests.benchmarks.hostile_inputs import INPUTS, Report
from dssm_assets_tests.benchmarks.neighbours import NEIGHBOURS
from dssm_assets_tests.deploy.services import BUCKET, object_store
from dssm_assets_tests.service.bundle.stored_bundles import marks, publish
from dssm_assets_tests.storage.races import ASSET, publish_mark, race, read_marks
from dssm_assets_tests.storage.stores import DS, verify
from dssm_assets_tests.storage.test_disk_space import MOUNTED, WRITES
from dssm_assets_tests.worlds import DAYS, write_config

ROUNDS: Final = 1000
WRITERS, READERS = 3, 2
_FAILING: Final = (0.10, 0.35)
URL: Final = f"s3://{BUCKET}/campaign"


@dataclass(frozen=True)
class Limits:
    """How much is tried: a fraction of the attempts of a full run, and the seconds after which a race ends early."""

    scale: float = 1.0
    seconds: float = float("inf")


@dataclass
class Row:
    """A line of the table: the attempts of one kind, what was seen, and what failed."""

    name: str
    tried: int = 0
    seen: str = ""
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def races_disk(folder: Path, limits: Limits) -> Iterator[Row]:
    """Racing writers and readers on the local disk; replaced files are removed at once, the hardest case."""
    yield _race("local disk", lambda: PartitionStore(str(folder), grace_seconds=0), limits)


def races_s3(folder: Path, limits: Limits) -> Iterator[Row]:
    """The same on an S3 server."""
    del folder
    with object_store() as options:
        yield _race("S3", _opener(URL, options), limits)


def faults_s3(folder: Path, limits: Limits) -> Iterator[Row]:
    """The same on an S3 server behind a proxy that lets requests fail; an error told to the caller is no failure."""
    del folder
    with object_store() as options:
        for frac in _FAILING:
            with faulty_proxy(options["endpoint_url"], frac) as proxy:
                through, url = {**options, "endpoint_url": proxy.url}, f"{URL}-{frac}"
                fewer = Limits(limits.scale / 10, limits.seconds)
                more = {"is_reliable": False, "last_store": _opener(url, options)}
                row = _race(f"S3, {frac:.0%} of requests fail", _opener(url, through), fewer, **more)
                row.seen += f", {proxy.failed} of {proxy.asked} requests failed"
                yield row


def kills(folder: Path, limits: Limits) -> Iterator[Row]:
    """Writers of partitions and publishers of bundles on the local disk, killed at random moments; then the leftovers."""
    context, moments = multiprocessing.get_context("fork"), random.Random(17)
    for name, work, check in (
        ("partition", _publish_marks, _check_partition),
        ("bundle", _publish_bundles, _check_bundle),
    ):
        row, root = Row(f"kill -9 of a writer: {name}"), folder / name
        publish_mark(PartitionStore(str(root)), "x")
        publish(BundleStore(str(root)), "first")
        for attempt in range(max(1, round(200 * limits.scale))):
            process = context.Process(target=work, args=(str(root), attempt), daemon=True)
            process.start()
            time.sleep(moments.uniform(0.005, 0.25))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            _attempt(row, check, root)
        before, store = time.time() + 60, PartitionStore(str(root))
        removed = [
            leftover.remove() for leftover in [*find_in_store(store, before), *find_bundles(BundleStore(str(root)), before)]
        ]
        _attempt(row, check, root)
        row.failed += [f"left over: {leftover.path}" for leftover in find_in_store(store, before)]
        row.seen = f"{len(removed)} leftovers removed"
        yield row


def cleanups(folder: Path, limits: Limits) -> Iterator[Row]:
    """Cleanups without a grace period beside racing writers and readers, partitions of days that expire, folders of others."""
    is_over, root = threading.Event(), str(folder / "race")

    def clean_forever() -> None:
        while not is_over.is_set():
            for leftover in find_in_store(PartitionStore(root), time.time()):
                leftover.remove()

    cleaner = threading.Thread(target=clean_forever)
    cleaner.start()
    row = _race(
        "local disk, beside a cleanup", lambda: PartitionStore(root, grace_seconds=0), Limits(limits.scale / 5, limits.seconds)
    )
    is_over.set()
    cleaner.join()
    yield row
    row, moments = Row("partitions written while old ones expire"), random.Random(17)
    workspace = open_workspace(write_config(folder, {"storage": {"keep_days": {"training": 2}}}))
    store = workspace.tables.partitions
    for attempt in range(max(1, round(200 * limits.scale))):
        days = [*DAYS[: moments.randint(3, len(DAYS))], moments.choice(["2023-05-05", "2024-06-06", "2099-01-01"])]
        for ds in store.days("dssm_model"):
            store.remove("dssm_model", ds)
        for ds in days:
            _put(store, ds, f"{attempt}")
        found = list(find_expired(workspace, time.time() + 1))
        written = moments.choice(days)
        _put(store, written, f"{attempt} again")
        removed = {leftover.path.rpartition("/")[2] for leftover in found if leftover.remove()}
        row.tried += 1
        if not {written, *days[-3:-1]} <= set(store.days("dssm_model")):
            row.failed.append(f"{written} of {days} written again: removed {removed}")
    yield row
    yield _clean_beside_others(folder / "others", limits)


def _clean_beside_others(folder: Path, limits: Limits) -> Row:
    """Puts folders, links and files, also in the name of our own folder, beside what killed processes left: they stay, that goes."""
    row, moves, before = Row("temporary folders beside those of others"), random.Random(17), tempfile.tempdir
    names = ("dssm-backup", "dssm-fit-x", "fit-x", f"dssm-assets-{os.geteuid()}", "dssm-assets-4711", "_staging")
    for attempt in range(max(1, round(500 * limits.scale))):
        photos = folder / f"{attempt}" / "photos"
        (photos / "fit-2019").mkdir(parents=True)
        parents, left = [photos.parent / name for name in ("tmp", "scratch")], list[Path]()
        for parent in parents:
            parent.mkdir()
            if moves.random() < 0.5 and (own := find_own_folder(parent, makes=True)) is not None:
                left += [own / "fit-killed", own / "bundle-killed"]
            for path in (parent / name for name in moves.sample(names, 3)):
                kind = "ours" if path.exists() else moves.choice(["folder", "link", "file"])
                if kind == "folder":
                    shutil.copytree(photos, path)
                elif kind == "link":
                    path.symlink_to(photos)
                elif kind == "file":
                    path.touch()
        theirs = sorted(photos.parent.rglob("*"))
        for path in left:
            path.mkdir()
        tempfile.tempdir = str(parents[0])
        try:
            found = list(find_temporary(parents[1:], photos / "cache", time.time() + 60))
            removed = [leftover.path for leftover in found if leftover.remove() is None]
        finally:
            tempfile.tempdir = before
        row.tried += 1
        if sorted(photos.parent.rglob("*")) != theirs or sorted(removed) != sorted(map(str, left)):
            row.failed.append(f"attempt {attempt}: removed {removed}")
    return row


def damage(folder: Path, limits: Limits) -> Iterator[Row]:
    """Deltas of bundles of which a file was changed, cut off or removed at random: none may be published."""
    row, moments = Row("deltas of damaged bundles"), random.Random(17)
    for attempt in range(max(1, round(500 * limits.scale))):
        store = BundleStore(str(folder / f"{attempt}"))
        base = publish(store, "base")
        path = Path(store.folder(base.bundle_id), moments.choice([*base.manifest["files"], "manifest.json"]))
        content = path.read_bytes()
        at = moments.randrange(len(content))
        path.write_bytes(moments.choice([content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]]))
        if moments.random() < 0.2:
            path.unlink()
        row.tried += 1
        try:
            with store.staging() as staged:
                (staged / "file0").write_text("own")
                store.publish(staged, {"ds": DS}, 2, base=base.bundle_id)
            row.failed.append(f"published over a damaged {path.name}")
        except DssmError:
            row.failed += [] if store.pointer() == base.pointer else [f"{path.name}: the pointer has changed"]
    yield row


def disks(folder: Path, limits: Limits) -> Iterator[Row]:
    """Tables, artifacts, arrays, spilled queries and SQLite on disks of sizes drawn at random: a typed error, or room enough."""
    row, sizes = Row("full disks"), random.Random(17)
    for _ in range(max(1, round(20 * limits.scale))):
        command = f'mount -t tmpfs -o size={sizes.randint(500, 6000)}k none {folder} && {sys.executable} -c "$0" {folder}'
        done = subprocess.run([*MOUNTED, command, WRITES], check=False, capture_output=True, text=True)
        row.tried += 1
        row.failed += [] if done.stdout.endswith("whole\n") else [done.stderr[-500:]]
    yield row


def inputs(folder: Path, limits: Limits) -> Iterator[Row]:
    """Hostile configurations, broken files and requests over HTTP: a typed error each, or none."""
    yield from _attempts_of(INPUTS, folder, limits)


def neighbours(folder: Path, limits: Limits) -> Iterator[Row]:
    """Places that a service watches, stores and catalogs away or locked, and users who are forgotten."""
    yield from _attempts_of(NEIGHBOURS, folder, limits)


def _attempts_of(parts: Mapping[str, Callable[[Path, int, Report], None]], folder: Path, limits: Limits) -> Iterator[Row]:
    for number, (name, attempts) in enumerate(parts.items()):
        row, own = Row(name), folder / f"{number}"
        own.mkdir()

        def report(failure: str | None, row: Row = row) -> None:
            row.tried += 1
            row.failed += [] if failure is None else [failure]

        attempts(own, max(10, round(2000 * limits.scale)), report)
        yield row


PARTS: Final[Mapping[str, Callable[[Path, Limits], Iterator[Row]]]] = {
    part.__name__: part for part in (races_disk, races_s3, faults_s3, kills, cleanups, damage, disks, inputs, neighbours)
}


def _race(place: str, open_store: Callable[[], PartitionStore], limits: Limits, **more: Any) -> Row:
    rounds = max(1, round(ROUNDS * limits.scale))
    found = race(open_store, rounds=rounds, writers=WRITERS, readers=READERS, seconds=limits.seconds, **more)
    seen = f"{found.writes} writes, {found.reads} reads, {found.retries} read again, {found.refused} errors told"
    return Row(f"{WRITERS} writers, {READERS} readers, {place}", found.writes + found.reads, seen, found.faults)


def _opener(url: str, options: Mapping[str, Any]) -> Callable[[], PartitionStore]:
    return lambda: PartitionStore(url, {**options, "skip_instance_cache": True}, grace_seconds=0)


def _publish_marks(root: str, attempt: int) -> None:
    store = PartitionStore(root, grace_seconds=0 if attempt % 2 else 3600)
    for turn in range(10**6):
        publish_mark(store, "xy"[turn % 2])


def _publish_bundles(root: str, attempt: int) -> None:
    store = BundleStore(root)
    for turn in range(10**6):
        publish(store, f"k{attempt}-{turn}")


def _put(store: PartitionStore, ds: str, text: str) -> None:
    with store.staging() as staged:
        (staged / "weights").write_text(text)
        store.publish(asset="dssm_model", ds=ds, staged=[(staged / "weights", 1)])


def _check_partition(root: Path) -> None:
    store = PartitionStore(str(root))
    verify(store, store.need(ASSET, DS))
    assert len(read_marks(store)) == 1


def _check_bundle(root: Path) -> None:
    store = BundleStore(str(root))
    pointer = store.pointer()
    assert pointer is not None
    for bundle_id in pointer.stored:
        store.fetch(bundle_id)
        assert len(marks(store, bundle_id)) == 1


def _attempt(row: Row, check: Callable[[Path], None], root: Path) -> None:
    row.tried += 1
    try:
        check(root)
    except Exception as error:
        row.failed.append(f"{type(error).__name__}: {error}")


def run_campaign(names: Sequence[str], limits: Limits) -> list[Row]:
    """Returns the rows of some parts."""
    rows: list[Row] = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
            begin = time.monotonic()
            for row in PARTS[name](Path(folder), limits):
                row.seconds, begin = time.monotonic() - begin, time.monotonic()
                rows.append(row)
                print(
                    f"{row.name}: {row.tried} tried, {len(row.failed)} failed, {row.seconds:.0f} s", file=sys.stderr, flush=True
                )
    return rows


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a markdown table."""
    lines = ["| what | tried | failed | seen | s |", "|---|---:|---:|---|---:|"]
    lines += [f"| {row.name} | {row.tried:,} | {len(row.failed)} | {row.seen} | {row.seconds:.0f} |" for row in rows]
    tried, failed, seconds = (sum(values) for values in zip(*((r.tried, len(r.failed), r.seconds) for r in rows), strict=True))
    return "\n".join([*lines, f"| together | {tried:,} | {failed:.0f} | | {seconds:.0f} |"])


def main() -> int:
    """Runs the campaign, prints the table and what failed; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(PARTS), default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the attempts of a full run")
    parser.add_argument("--seconds", type=float, default=150.0, help="after which a race ends early (default: 150; inf: never)")
    parsed = parser.parse_args()
    rows = run_campaign(parsed.only, Limits(parsed.scale, parsed.seconds))
    failures = [f"FAILED {row.name}: {failure}" for row in rows for failure in row.failed[:20]]
    print("\n".join([table(rows), *failures]))
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
