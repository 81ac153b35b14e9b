"""Writers and readers that race for one partition, and the faults that they saw; shared by tests and the campaign benchmark.

Every content of the partition is a few files that all hold one mark. A fault is anything that a reader saw other than the files
of one mark, or an error of a writer; in the end the partition must be equal to its manifest.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from dssm_assets.core.errors import PartitionReplacedError, StorageError
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.storage.stores import DS, verify

ASSET = "notes"
FILES = 3
MARKS = ("x", "y")


@dataclass
class RaceResult:
    """What happened in a race.

    Attributes:
        writes: number of publications.
        reads: number of whole contents that readers saw.
        retries: how often a reader had to read again, because the partition was replaced meanwhile.
        refused: errors of an unreliable store, after all retries of its client.
        faults: what should not happen.
    """

    writes: int = 0
    reads: int = 0
    retries: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)


def publish_mark(store: PartitionStore, mark: str) -> Manifest:
    """Publishes a partition all of whose files hold a mark."""
    with store.staging() as folder:
        staged = []
        for number in range(FILES):
            path = folder / f"part-{number:05d}.bin"
            path.write_text(f"{mark} {number}", encoding="utf-8")
            staged.append((path, 1))
        return store.publish(asset=ASSET, ds=DS, staged=staged)


def read_marks(store: PartitionStore, before_read: Callable[[], None] = lambda: None) -> set[str]:
    """Returns the marks that the files of the partition hold.

    Raises:
        PartitionReplacedError: its files were removed because it was written again meanwhile.
    """
    manifest = store.need(ASSET, DS)
    before_read()
    with store.reading([manifest]):
        contents = [store.fs.cat_file(store.file_path(manifest, file), start=0).decode() for file in manifest.files]
    assert [content.split()[1] for content in contents] == [str(number) for number in range(FILES)]
    return {content.split()[0] for content in contents}


def race(
    open_store: Callable[[], PartitionStore],
    *,
    rounds: int,
    writers: int,
    readers: int,
    seconds: float = float("inf"),
    is_reliable: bool = True,
    last_store: Callable[[], PartitionStore] | None = None,
) -> RaceResult:
    """Lets each writer publish `rounds` times, in threads with stores of their own, while the readers read; returns the result.

    In every round each writer publishes one of two contents, not the one of its round before: so each content is replaced by one
    writer while another publishes it again.

    Args:
        open_store: opens the store once more.
        rounds: publications of each writer.
        writers: their number.
        readers: their number.
        seconds: after which no further round begins.
        is_reliable: False if the store itself fails at times; then errors other than missing files are counted as refused.
        last_store: opens the store that the end is judged by, if another.
    """
    publish_mark((last_store or open_store)(), MARKS[0])
    seen: Counter[str] = Counter()
    result, is_over, end = RaceResult(), threading.Event(), time.monotonic() + seconds

    def note(who: str, error: Exception) -> None:
        if is_reliable or isinstance(error, FileNotFoundError | StorageError | AssertionError):
            result.faults.append(f"{who}: {type(error).__name__}: {error}")
        else:
            seen["refused"] += 1

    def write(number: int) -> None:
        store = open_store()
        for turn in range(rounds):
            if time.monotonic() > end:
                return
            try:
                publish_mark(store, MARKS[(turn + number) % len(MARKS)])
                seen["writes"] += 1
            except Exception as error:
                note(f"writer {number}, round {turn}", error)

    def read(number: int) -> None:
        store = open_store()
        while not is_over.is_set():
            try:
                found = read_marks(store)
                seen["reads"] += 1
                if len(found) != 1:
                    result.faults.append(f"reader {number}: {found} in one partition")
            except PartitionReplacedError:
                seen["retries"] += 1
            except Exception as error:
                note(f"reader {number}", error)

    writing = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    reading = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
    for thread in (*writing, *reading):
        thread.start()
    for thread in writing:
        thread.join()
    is_over.set()
    for thread in reading:
        thread.join()
    store = (last_store or open_store)()
    try:
        verify(store, store.need(ASSET, DS))
        assert len(read_marks(store)) == 1
    except Exception as error:
        result.faults.append(f"in the end: {type(error).__name__}: {error}")
    result.writes, result.reads, result.retries = seen["writes"], seen["reads"], seen["retries"]
    result.refused = seen["refused"]
    return result
