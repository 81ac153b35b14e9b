"""hit_rate@200 of ours and of peers on MovieLens and on sequences, by one evaluator in one run.

    python -m dssm_assets_tests.benchmarks.quality --data DIR --dataset ml-100k --split lastpct-20
    python -m dssm_assets_tests.benchmarks.quality --sequences FILE [--attributes FILE]

DIR/DATASET holds users.parquet, items.parquet and behavior.parquet. `quality_data.py` explains the splits, `quality_settings.py`
lists the settings and where they were chosen. Leave-one-out is also reported as published: HR@k and NDCG@k beside published
figures, on MovieLens-1M in the order in which users rated. With `--query-time` the queries of ours know the time of the held-out item,
as a request does: how long after the user's last event it is, is a feature of the user.

    python -m dssm_assets_tests.benchmarks.quality --train FILE --test FILE

FILE is a text file of lines "user item item ...", oldest item first; the last item of each line is held out. The item before it is
the validation item of published protocols: the first rows of ours neither train on it nor choose by it, but it is the last of the
history for which items are recalled. The first row of all is an untrained floor (`quality_floor.py`); with `--attributes FILE`, lines
"item attribute attribute ...", it also knows these. A graph is a train and a test file, whose order means nothing. Settings are fixed up to a
choice inside the training part (`quality_choice.py`).

Peers need their libraries (`pip install 'dssm-assets[bench]'`); one that is not installed or too large is reported as missing. `--inner`
scores on the inner split, on which settings are chosen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from math import nan
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from dssm_assets.core.errors import InputError
from dssm_assets_tests.benchmarks.quality_choice import choose_parts
from dssm_assets_tests.benchmarks.quality_data import (
    Entities,
    Split,
    read_graph_split,
    read_log_split,
    read_sequence_split,
)
from dssm_assets_tests.benchmarks.quality_floor import fit_floor, read_attributes
from dssm_assets_tests.benchmarks.quality_ours import add_neighbours, find_neighbours, fit_chosen, narrow_vectors
from dssm_assets_tests.benchmarks.quality_peers import PEERS
from dssm_assets_tests.benchmarks.quality_scores import (
    FILTERED,
    UNFILTERED,
    Recommender,
    hit_rate,
    mean_metrics,
    rank_truth,
)
from dssm_assets_tests.benchmarks.quality_settings import (
    ADDED_CODES,
    TEXT_PEERS,
    Chosen,
    chosen,
    peer_settings,
    text_candidates,
)

OURS: Final = "dssm-assets"
MODELS: Final = ("ours", *PEERS)
METRICS: Final = {"loo": ("HR@10", "HR@50", "HR@200", "NDCG@10"), "graph": ("Recall@20", "Recall@200", "NDCG@20")}
"""Of the splits whose publications report them."""
MAX_DIM: Final = 128
"""Width of the first row of these splits; wider vectors have a row of their own."""
NOT_TRAINED, TRAINED = ", validation item not trained on", ", validation item trained on"
PUBLISHED: Final[dict[tuple[str, str], dict[str, tuple[float, ...]]]] = {
    ("ml-1m", "loo"): {
        "FuXi-alpha (RecTools)": (0.3164, nan, nan, nan),
        "eSASRec (RecTools)": (0.3133, nan, nan, nan),
        "HSTU (RecTools)": (0.3226, nan, 0.7856, nan),
        "HSTU-large (RecTools)": (0.3642, 0.6194, 0.8031, 0.2164),
    }
}
"""Published figures by data set and split, of the same test: the benchmark of the library RecTools. The HSTU paper (Zhai et al. 2024)
has another one: its unstable sort of equal times changes a quarter of the held-out items."""
Lister = Callable[[int], Iterator[tuple[str, Recommender]]]
"""Seed -> the fitted recommenders by name."""


def list_ours(split: Split, entities: Entities | None, ours: Chosen, fitted: dict[str, Split]) -> Lister:
    """Returns a fit of ours to every one of these splits, by the end of the names; what is known of users is `split`.

    Narrow vectors of at most `MAX_DIM` come first, with neighbours and without. Wider ones have a row of their own, unless a prior alone
    makes them wider.
    """
    added = {label: find_neighbours(part, ours.neighbours_std or 1.0, split) for label, part in fitted.items()}

    def fit(seed: int) -> Iterator[tuple[str, Recommender]]:
        for label, part in fitted.items():
            wide = fit_chosen(ours, part, entities, seed, split)
            narrow = narrow_vectors(wide, MAX_DIM)
            for vectors in (narrow, wide) if wide.items.shape[1] > MAX_DIM + 1 else (narrow,):
                name = f"{OURS}, {vectors.items.shape[1]} dimensions"
                if ours.neighbours_std:
                    yield f"{name} and neighbours{label}", add_neighbours(vectors, added[label])
                if vectors.items.shape[1] <= MAX_DIM or not ours.neighbours_std:
                    yield f"{name}{label}", vectors
            yield f"neighbours alone{label}", added[label]

    return fit


def list_floor(split: Split, fitted: dict[str, Split], attributes: Any) -> Lister:
    """Returns the untrained floor of these splits, by the end of the names; what is known of users is `split`."""
    return lambda seed: ((f"untrained floor{label}", fit_floor(part, split, attributes)) for label, part in fitted.items())


def list_peer(name: str, split: Split, settings: dict[str, Any], label: str) -> Lister:
    width = settings.get("factors") or settings.get("n_factors")
    shown = f"{name}, {width} dimensions{label}" if width else name + label
    return lambda seed: iter([(shown, PEERS[name](split, settings, seed))])


def measure(split: Split, fit: Lister, seeds: Sequence[int], metrics: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        begin = time.process_time()
        for name, recommender in fit(seed):
            ranks = rank_truth(recommender, split)
            rates = {variant: hit_rate(ranks[variant], split) for variant in (FILTERED, UNFILTERED)}
            found.setdefault(name, []).append({**rates, "means": mean_metrics(ranks[FILTERED], split, metrics)})
            shown = " / ".join(f"{rate:.4f}" for rate, _ in rates.values())
            print(f"{name}, seed {seed}: {shown}, {time.process_time() - begin:.0f} CPU-s", file=sys.stderr, flush=True)
    return found


def render(dataset: str, rule: str, split: Split, found: dict[str, list[dict[str, Any]]], *, inner: bool) -> str:
    """Returns the sizes of the split, the rates (mean ± spread over seeds, standard error over users), and HR@k beside published figures."""
    sizes = {"train events": split.user, "train users": split.user_ids, "train items": split.item_ids}
    sizes |= {"eval users": split.eval_users, "eval pairs": split.truth_row}
    counted = ", ".join(f"{len(values):,} {name}" for name, values in sizes.items())
    heading = f"{dataset}, {rule}{' (inner: to choose settings on)' if inner else ''}: {counted}"
    lines = [f"{heading}, {split.dropped_pairs:,} dropped pairs", ""]
    lines += [f"| model | hit_rate@200 {FILTERED} | {UNFILTERED} |", "|---|---|---|"]
    for name, runs in found.items():
        lines.append(f"| {name} | {' | '.join(_rate([run[variant] for run in runs]) for variant in (FILTERED, UNFILTERED))} |")
    if names := METRICS.get(rule, ()):
        lines += ["", f"| seen items left out | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        rows = {name: [float(np.mean([run["means"][key] for run in runs])) for key in names] for name, runs in found.items()}
        published = {} if inner else PUBLISHED.get((dataset, rule), {})
        for name, row in [*rows.items(), *((f"published: {name}", row) for name, row in published.items())]:
            lines.append(f"| {name} | {' | '.join(f'{value:.4f}'.replace('nan', '-') for value in row)} |")
    return "\n".join(lines)


def _rate(rates: Sequence[tuple[float, float]]) -> str:
    values, errors = np.array(rates).T
    spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread} ({errors.mean():.4f})"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the data sets")
    source.add_argument("--sequences", type=Path, metavar="FILE", help="a text file of sequences")
    source.add_argument("--train", type=Path, metavar="FILE", help="a graph: a text file of each user's items")
    parser.add_argument("--attributes", type=Path, metavar="FILE", help="the items' attributes, with --sequences")
    parser.add_argument("--test", type=Path, metavar="FILE", help="the items to find, with --train")
    parser.add_argument("--dataset", default="ml-100k", help="folder in it (default: ml-100k)")
    parser.add_argument("--split", default="lastpct-20", help="lastpct-P, loo or temporal-D (default: lastpct-20)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (default: 3)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all)")
    parser.add_argument(
        "--query-time", action="store_true", help="queries know the time of the held-out item (with --data, --split loo)"
    )
    parser.add_argument("--inner", action="store_true", help="applies the rule twice: the split on which settings are chosen")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the requested models and prints the table."""
    parser = _make_parser()
    given = parser.parse_args(arguments)
    if (given.train is None) != (given.test is None):
        parser.error("--train and --test belong together")
    if given.attributes and not given.sequences:
        parser.error("--attributes needs --sequences")
    if given.query_time and (given.data is None or given.split != "loo"):
        parser.error("--query-time needs --data and --split loo: one held-out item of each user, and its time")
    dataset, rule, label = (given.sequences or given.train or Path(given.dataset)).stem, "loo", ""
    entities: Entities | None = None
    try:
        if given.sequences:
            split, label = read_sequence_split(given.sequences, inner=given.inner), TRAINED
        elif given.train:
            split, rule = read_graph_split(given.train, given.test, inner=given.inner), "graph"
        else:
            folder, rule = given.data / given.dataset, given.split
            split = read_log_split(folder, rule, inner=given.inner)
            entities = pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet")
    except InputError as error:
        parser.exit(1, f"{error}\n")
    metrics, found = METRICS.get(rule, ()), {}
    fitted = {NOT_TRAINED: split.without_last(), TRAINED: split} if label else {"": split}
    if given.sequences:
        attributes = given.attributes and read_attributes(given.attributes, given.sequences, split)
        found |= measure(split, list_floor(split, fitted, attributes), range(1), metrics)
    if "ours" in given.models:
        first = next(iter(fitted.values()))
        ours = chosen(dataset, rule) if given.data else choose_parts(first, text_candidates(first), ADDED_CODES)
        ours = ours.with_gap() if given.query_time else ours
        found |= measure(split, list_ours(split, entities, ours, fitted), range(given.seeds), metrics)
    missing = []
    for name in (name for name in PEERS if name in given.models):
        peer = peer_settings(name, dataset, rule) if given.data else TEXT_PEERS.get(name)
        if peer is not None:
            try:
                found |= measure(split, list_peer(name, split, peer, label), range(given.seeds), metrics)
            except (ImportError, MemoryError) as error:
                missing.append(f"{name}: {error}")
    print("\n".join([render(dataset, rule, split, found, inner=given.inner), *missing]))


if __name__ == "__main__":
    main()
