"""Hits from lists, per scorer, at a large and a demo-like size: `python -m dssm_assets_tests.benchmarks.hit_counts`.

A random world of a fixed seed: popular items are drawn more often, window and truth alike; vectors are random. CPU time of
`hits.rank_truth`: lists of all items, without the window's and without all earlier ones, and the truth pairs in them. The model's
exact search is left out with `--no-model`: at 100,000 users it takes minutes.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.baselines.fit_data import FitData
from dssm_assets.core.evaluation.baselines.suite import baseline_scorers, fit_baselines
from dssm_assets.core.evaluation.hits import InteractedItems, rank_truth
from dssm_assets.core.evaluation.interactions import Interactions, sum_interactions
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.scorer import Scorer, model_scorer
from dssm_assets.core.evaluation.truth import Truth
from dssm_assets_tests.core.evaluation.worlds import item_events, user_items

SIZES = ((100_000, 92_000, 10, 30, 100), (400, 92_000, 10, 60, 600))
"""Users, items, truth pairs of a user, interactions of a user in the window, and in the days before it."""
DIMS = 64


@dataclass(frozen=True)
class World:
    """What is scored: interactions of the window and of all days, truth pairs sorted by user, scorers."""

    window: Interactions
    history: Interactions
    pair_user: np.ndarray
    pair_item: np.ndarray
    scorers: list[Scorer]


def make_world(users: int, items: int, truth: int, window: int, older: int, *, has_model: bool) -> World:
    """Returns a random world."""
    rng = np.random.default_rng(0)

    def draw_items(count: int) -> np.ndarray:
        return np.minimum((items * rng.random(count) ** 3).astype(np.int64), items - 1)

    def vectors(side: str, count: int) -> pa.Table:
        values = rng.normal(size=count * DIMS).astype(np.float32)
        return pa.table({f"{side}_id": np.arange(count), f"{side}_tower_emb": pa.FixedSizeListArray.from_arrays(values, DIMS)})

    user_ids, item_ids = pa.array(np.arange(users)), pa.array(np.arange(items))

    def draw_events(each: int) -> pa.Table:
        size = users * each
        columns = {"user_id": np.repeat(np.arange(users), each), "item_id": draw_items(size), "count": np.ones(size, np.int64)}
        return pa.table({**columns, "last_event_time_ms": rng.integers(0, 1000, size)})

    seen = sum_interactions([draw_events(window)], user_ids, item_ids)
    history = sum_interactions([draw_events(older)], user_ids, item_ids, seen)
    pairs = np.unique(np.repeat(np.arange(users), truth) * items + draw_items(users * truth))
    data = FitData(*[item_events(seen)] * 3, user_items(seen), lambda: iter([history]), Evaluation())
    scorers = baseline_scorers(fit_baselines(data), seen, history)
    if has_model:
        model = model_scorer(vectors("item", items), vectors("user", users), user_ids, Similarity.COSINE)
        scorers.insert(0, model)
    return World(seen, history, pairs // items, pairs % items, scorers)


def time_scorer(scorer: Scorer, world: World, k: int) -> tuple[float, int]:
    """Returns CPU seconds, and hits at k in the lists of all items."""
    num_users, num_pairs = len(world.window.indptr) - 1, len(world.pair_user)
    past = InteractedItems(world.window.exclusions(num_users), world.history.exclusions(num_users))
    is_repeat, is_known = (own.contains(world.pair_user, world.pair_item) for own in past)
    users, warm = pa.array(np.arange(num_users)), np.ones(max(num_users, num_pairs), np.bool_)
    truth = Truth(users, warm[:num_users], world.pair_user, world.pair_item, warm[:num_pairs], is_repeat, is_known)
    begin = time.process_time()
    (ranks,) = rank_truth([scorer], truth, past, k, np.ones(truth.num_users, np.bool_))
    return time.process_time() - begin, int((ranks.everything < k).sum())


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--size", type=int, nargs=5, metavar=("USERS", "ITEMS", "TRUTH", "WINDOW", "OLDER"), help="default: both sizes"
    )
    parser.add_argument("-k", type=int, default=200)
    parser.add_argument("--no-model", action="store_true")
    given = parser.parse_args(arguments)
    for users, items, truth, window, older in [given.size] if given.size else SIZES:
        world = make_world(users, items, truth, window, older, has_model=not given.no_model)
        print(f"{users:,} users, {items:,} items, {len(world.pair_user):,} truth pairs, k {given.k}\n")
        print(f"{'scorer':>24}  {'CPU s':>8}  {'hits':>9}")
        for scorer in world.scorers:
            spent, found = time_scorer(scorer, world, given.k)
            print(f"{display_name(scorer.name):>24}  {spent:>8.2f}  {found:>9,}", flush=True)
        print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10:,} MiB\n")


if __name__ == "__main__":
    main()
