"""The parts of the library, each timed on generated data, with the least work that the machine must do for one row.

The least work is the products of towers, logits and distances, and the bytes of inputs, outputs and embedding rows. All other
work of a part (hashing, sorting, drawing negatives) makes its share of the limit smaller than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np

from dssm_assets.core.config.evaluation import Serving
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Device, Training
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.index import search_index, ship_index
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.core.training.loop import fit
from dssm_assets_tests.benchmarks.machine import generated
from dssm_assets_tests.benchmarks.machine.generated import BenchSizes

Now = Callable[[], float]

FLOAT_BYTES: Final = 4
PASSES: Final = 3
"""A matrix product runs once forward and twice for the gradients."""
BATCH_SIZE: Final = 4096
NEGATIVES: Final = 2048
HISTORY: Final = 50
_DAY_MS: Final = 86_400_000
_REPEATS: Final = 3
_SEARCH_BLOCK: Final = 1024


@dataclass(frozen=True)
class Timed:
    """The time of a part.

    Attributes:
        unit: what a row is.
        rows: rows that were processed.
        flops: floating point operations that one row needs at least.
        bytes_moved: bytes that one row reads and writes at least.
        note: settings or a result of the part.
    """

    name: str
    unit: str
    rows: int
    seconds: float
    flops: float
    bytes_moved: float
    note: str = ""


def feature_generation(sizes: BenchSizes, now: Now) -> Iterator[Timed]:
    """Yields the time of hashing raw rows, as tables store them, and of turning them into buckets."""
    rows = generated.raw_rows(sizes.rows, sizes.seed)
    generator = FeatureGenerator.from_fg_json(generated.feature_definitions())
    note = f"{len(generator.spec.features)} features"
    for name, work in (("feature generation, hashes", generator.encode), ("feature generation, buckets", generator.bucketize)):
        made, seconds = _timed(lambda work=work: work(rows), now, repeats=1)  # type: ignore[misc]
        yield Timed(name, "rows", len(rows), seconds, 0.0, (rows.nbytes + made.nbytes) / len(rows), note)


def towers(sizes: BenchSizes, now: Now) -> Iterator[Timed]:
    """Yields the time of training an epoch, and of the vectors of all users and items by the trained towers."""

    negatives = min(NEGATIVES, sizes.items)
    model = Model(output_dim=sizes.dims, hidden_units=[256, 128], num_sample=negatives, history_length=HISTORY)
    batch_size = min(BATCH_SIZE, sizes.samples)
    training = Training(epochs=1, batch_size=batch_size, num_threads=sizes.threads, device=Device.CPU)
    spec = tower_spec(generated.tower_features(sizes.items), model)
    tables = generated.training_tables(sizes, sizes.seed)
    data = TrainData(spec, **tables)
    start = now()
    fitted = fit(data, spec, model=model, training=training, seed=sizes.seed, progress=lambda _: None, now=now).two_tower
    seconds = now() - start
    user, item = (_multiply_adds(tower) for tower in (fitted.user_tower, fitted.item_tower))
    history = _mean_history_length(tables)
    columns = batch_size + negatives
    products = user + item * columns / batch_size + columns * sizes.dims
    read = _embedding_bytes(fitted, history) + _item_bytes(fitted) * columns / batch_size
    note = f"batch {batch_size:,} and {negatives:,} negatives"
    yield Timed("training", "samples", sizes.samples, seconds, 2 * PASSES * products, 2 * read, note)
    written = sizes.dims * FLOAT_BYTES
    yield Timed(
        "user vectors",
        "rows",
        sizes.users,
        _user_seconds(fitted, tables, now),
        2 * user,
        _embedding_bytes(fitted, history) + written,
    )
    yield Timed(
        "item vectors", "rows", sizes.items, _item_seconds(fitted, tables, now), 2 * item, _item_bytes(fitted) + written
    )


def searches(sizes: BenchSizes, now: Now) -> Iterator[Timed]:
    """Yields the time of exact search and of an index over the same items, with the recall of the index."""
    faiss.omp_set_num_threads(sizes.threads)
    items = generated.unit_vectors(sizes.corpus, sizes.dims, sizes.seed + 1)
    users = generated.unit_vectors(sizes.queries, sizes.dims, sizes.seed + 2)
    corpus = Corpus(items, Metric.IP)
    _, seconds = _timed(lambda: search(corpus, users, sizes.k, threads=sizes.threads), now)
    vector, found = sizes.dims * FLOAT_BYTES, sizes.k * 3 * FLOAT_BYTES
    corpus_bytes = sizes.corpus * vector / min(_SEARCH_BLOCK, sizes.queries)
    note = f"{sizes.corpus:,} items, top {sizes.k}"
    yield Timed("exact search", "queries", sizes.queries, seconds, 2.0 * sizes.corpus * sizes.dims, corpus_bytes + found, note)
    shipped = ship_index(items, users[:_SEARCH_BLOCK], [sizes.k], Serving(index=sizes.index), sizes.seed)
    _reset_comparisons()
    _, seconds = _timed(lambda: search_index(shipped.index, users, sizes.k), now)
    compared = _count_comparisons() / ((_REPEATS + 1) * sizes.queries) or sizes.corpus
    note = f"{shipped.kind}, recall {shipped.lowest_recall:.3f}"
    yield Timed("index search", "queries", sizes.queries, seconds, 2.0 * compared * sizes.dims, compared * vector + found, note)


def _timed(work: Callable[[], Any], now: Now, repeats: int = _REPEATS) -> tuple[Any, float]:
    """Returns the result of the work and its best time, after a first run that is not timed."""
    made = work()
    best = math.inf
    for _ in range(repeats):
        start = now()
        made = work()
        best = min(best, now() - start)
    return made, max(best, 1e-9)


def _user_seconds(fitted: TwoTower, tables: dict[str, Any], now: Now) -> float:

    as_of_ms = int(np.asarray(tables["history"].column("event_time_ms")).max()) + _DAY_MS
    inference = UserInference(fitted, tables["history"], as_of_ms=as_of_ms, batch_size=BATCH_SIZE)
    bounds = [np.asarray(tables["users"].column(name)) for name in ("history_start", "history_end")]
    return _timed(lambda: inference.vectors(tables["user_rows"], *bounds), now)[1]


def _item_seconds(fitted: TwoTower, tables: dict[str, Any], now: Now) -> float:

    inference = ItemInference(fitted, BATCH_SIZE)
    return _timed(lambda: inference.vectors(tables["items"]), now)[1]


def _multiply_adds(tower: Any) -> int:
    return sum(int(layer.weight.numel()) for layer in tower.linears)


def _mean_history_length(tables: dict[str, Any]) -> float:
    starts = np.asarray(tables["users"].column("history_start"))
    samples = tables["samples"]
    lengths = np.asarray(samples.column("history_end")) - starts[np.asarray(samples.column("user_index"))]
    return float(np.minimum(lengths, HISTORY).mean())


def _embedding_bytes(fitted: TwoTower, history: float) -> float:
    """Returns the bytes of the embedding rows that the user tower reads for a user with a history of this length."""
    spec = fitted.spec
    own = sum(feature.embedding_dim for feature in spec.features if feature.side.value in ("user", "context"))
    return float(FLOAT_BYTES * (own + history * sum(feature.embedding_dim for feature in spec.sequences)))


def _item_bytes(fitted: TwoTower) -> float:
    return float(FLOAT_BYTES * sum(feature.embedding_dim for feature in fitted.spec.features if feature.side.value == "item"))


def _counters() -> tuple[Any, Any]:

    found: Any = faiss.cvar
    return found.indexIVF_stats, found.hnsw_stats


def _reset_comparisons() -> None:
    for counter in _counters():
        counter.reset()


def _count_comparisons() -> int:
    """Returns how many vectors indexes have compared since the last reset; 0 for a kind of index that does not count."""
    return sum(int(counter.ndis) for counter in _counters())
