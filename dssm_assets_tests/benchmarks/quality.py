"""hit_rate@200 of ours and of peers on MovieLens and on sequences, by one evaluator in one run.

    python -m dssm_assets_tests.benchmarks.quality --data DIR --dataset ml-100k --split lastpct-20
    python -m dssm_assets_tests.benchmarks.quality --sequences FILE

DIR/DATASET holds users.parquet, items.parquet and behavior.parquet. `quality_data.py` explains the splits, `quality_settings.py`
lists the settings and where they were chosen. Leave-one-out is also reported as published: HR@k and NDCG@k beside published
figures, on MovieLens-1M in the order in which users rated.

FILE is a text file of lines "user item item ...", oldest item first; the last item of each line is held out. Its settings are
fixed up to a choice inside the training part (`quality_choice.py`).

Peers need their libraries (`pip install 'dssm-assets[bench]'`); one that is not installed is reported as missing. `--inner`
scores on the inner split, on which settings are chosen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from dssm_assets.core.errors import InputError
from dssm_assets_tests.benchmarks.quality_choice import Chosen, choose_parts
from dssm_assets_tests.benchmarks.quality_data import Entities, Split, read_log_split, read_sequence_split
from dssm_assets_tests.benchmarks.quality_ours import (
    add_neighbours,
    add_prior,
    concatenate_vectors,
    find_neighbours,
    fit_vectors,
)
from dssm_assets_tests.benchmarks.quality_peers import PEERS
from dssm_assets_tests.benchmarks.quality_scores import FILTERED, UNFILTERED, Recommender, hit_rate, mean_metrics, rank_truth
from dssm_assets_tests.benchmarks.quality_settings import TEXT_PEERS, chosen, peer_settings, text_candidates

OURS: Final = "dssm-assets"
MODELS: Final = ("ours", *PEERS)
CUT_OFFS: Final = {"loo": (10, 50, 200)}
"""k of HR@k and NDCG@k, for the split whose publications report them."""
METRICS: Final = ("HR@10", "HR@50", "HR@200", "NDCG@10")
PUBLISHED: Final[dict[tuple[str, str], dict[str, tuple[float, ...]]]] = {
    ("ml-1m", "loo"): {
        "SASRec, sampled softmax (HSTU paper)": (0.2853, 0.5474, 0.7528, 0.1603),
        "HSTU (HSTU paper)": (0.3097, 0.5754, 0.7716, 0.1720),
        "HSTU-large (HSTU paper)": (0.3294, 0.5935, 0.7839, 0.1893),
        "HSTU-large (RecTools)": (0.3642, 0.6194, 0.8031, 0.2164),
    }
}
"""Published figures by data set and split: Zhai et al. 2024 (HSTU), and the benchmark of the library RecTools."""
Lister = Callable[[int], Iterator[tuple[str, Recommender]]]
"""Seed -> the fitted recommenders by name."""


def list_ours(split: Split, entities: Entities | None, found: Chosen) -> Lister:
    """Returns a fit of ours; if neighbours are added, the same vectors without them are a recommender too."""
    neighbours = find_neighbours(split, found.neighbours_std) if found.neighbours_std else None

    def fit(seed: int) -> Iterator[tuple[str, Recommender]]:
        vectors = concatenate_vectors([fit_vectors(split, entities, part, seed) for part in found.parts])
        with_prior = add_prior(vectors, split, found.prior)
        yield OURS, add_neighbours(with_prior, neighbours)
        if neighbours is not None:
            yield f"{OURS} without neighbours", with_prior

    return fit


def list_peer(name: str, split: Split, settings: dict[str, Any]) -> Lister:
    return lambda seed: iter([(name, PEERS[name](split, settings, seed))])


def measure(split: Split, fit: Lister, seeds: Sequence[int], ks: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in seeds:
        begin = time.process_time()
        for name, recommender in fit(seed):
            ranks = rank_truth(recommender, split)
            rates = {variant: hit_rate(ranks[variant], split) for variant in (FILTERED, UNFILTERED)}
            found.setdefault(name, []).append({**rates, "means": mean_metrics(ranks[FILTERED], split, ks)})
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
    if rule in CUT_OFFS:
        lines += ["", f"| seen items left out | {' | '.join(METRICS)} |", f"|---|{'---|' * len(METRICS)}"]
        rows = {name: [float(np.mean([run["means"][key] for run in runs])) for key in METRICS] for name, runs in found.items()}
        published = {} if inner else PUBLISHED.get((dataset, rule), {})
        for name, row in [*rows.items(), *((f"published: {name}", row) for name, row in published.items())]:
            lines.append(f"| {name} | {' | '.join(f'{value:.4f}' for value in row)} |")
    return "\n".join(lines)


def _rate(rates: Sequence[tuple[float, float]]) -> str:
    values, errors = np.array(rates).T
    spread = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread} ({errors.mean():.4f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the requested models and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the data sets")
    source.add_argument("--sequences", type=Path, metavar="FILE", help="a text file of sequences")
    parser.add_argument("--dataset", default="ml-100k", help="folder in it (default: ml-100k)")
    parser.add_argument("--split", default="lastpct-20", help="lastpct-P, loo or temporal-D (default: lastpct-20)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (default: 3)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all)")
    parser.add_argument("--inner", action="store_true", help="applies the rule twice: the split on which settings are chosen")
    given = parser.parse_args(arguments)
    dataset, rule = (given.dataset, given.split) if given.data else (given.sequences.stem, "loo")
    entities: Entities | None = None
    try:
        if given.data:
            folder = given.data / dataset
            split = read_log_split(folder, rule, inner=given.inner)
            entities = pq.read_table(folder / "users.parquet"), pq.read_table(folder / "items.parquet")
        else:
            split = read_sequence_split(given.sequences, inner=given.inner)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    ks, found = CUT_OFFS.get(rule, ()), {}
    if "ours" in given.models:
        if given.data:
            settings = chosen(dataset, rule)
            parts = Chosen((settings,), settings.prior, settings.neighbours_std)
        else:
            parts = choose_parts(split, text_candidates(split))
        found |= measure(split, list_ours(split, entities, parts), range(given.seeds), ks)
    missing = []
    for name in (name for name in PEERS if name in given.models):
        peer = peer_settings(name, dataset, rule) if given.data else TEXT_PEERS.get(name)
        if peer is not None:
            try:
                found |= measure(split, list_peer(name, split, peer), range(given.seeds), ks)
            except ImportError as error:
                missing.append(f"{name}: {error}")
    print("\n".join([render(dataset, rule, split, found, inner=given.inner), *missing]))


if __name__ == "__main__":
    main()
