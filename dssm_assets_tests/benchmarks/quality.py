"""hit_rate@200 of ours and of the peers on MovieLens, by one evaluator in one run.

    python -m dssm_assets_tests.benchmarks.quality --data DIR --dataset ml-100k --split lastpct-20

DIR/DATASET holds users.parquet, items.parquet and behavior.parquet. `quality_splits.py` explains the splits,
`quality_settings.py` lists the settings and where they were chosen. Leave-one-out is also reported as published: HR@k and
NDCG@k beside published figures, on MovieLens-1M in the order in which users rated.

    python -m dssm_assets_tests.benchmarks.quality --sequences FILE
    python -m dssm_assets_tests.benchmarks.quality --train FILE --test FILE

run text files of lines "user item item ...", oldest item first: leave one out, or a train file and its test file, which are
reported by Recall@20 and NDCG@20. Their settings are fixed up to a choice inside the training part (`quality_text_settings.py`). Peers need their libraries (`pip install
'dssm-assets[bench]'`); one that is not installed is reported as missing. `--inner` scores on the inner split, on which settings
are chosen; `--ablation` changes one thing of ours at a time; `--json` prints one JSON object on the last line.

Belongs here: the command. Does not belong here: splits, recommenders, scoring, text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dssm_assets.core.errors import InputError
from dssm_assets_tests.benchmarks.quality_choice import Chosen, choose_parts
from dssm_assets_tests.benchmarks.quality_features import Entities, read_entities
from dssm_assets_tests.benchmarks.quality_neighbours import add_neighbours, find_neighbours
from dssm_assets_tests.benchmarks.quality_ours import concatenate_vectors, fit_vectors
from dssm_assets_tests.benchmarks.quality_peers import PEERS, Peer
from dssm_assets_tests.benchmarks.quality_prior import add_prior, best_prior
from dssm_assets_tests.benchmarks.quality_report import OURS, Report
from dssm_assets_tests.benchmarks.quality_scores import Run, scored, summary
from dssm_assets_tests.benchmarks.quality_settings import Settings, ablations, chosen, peer_settings
from dssm_assets_tests.benchmarks.quality_splits import Order, Split, default_order, read_split
from dssm_assets_tests.benchmarks.quality_text_settings import LOO, PAIR, text_candidates, text_peer_settings
from dssm_assets_tests.benchmarks.quality_texts import read_pair_split, read_sequence_split

MODELS = ("ours", *(peer.name for peer in PEERS))
CUT_OFFS = {"loo": (10, 50, 200), PAIR: (20, 50, 200)}
"""k of Recall@k and NDCG@k, for the splits whose publications report them."""


@dataclass(frozen=True)
class Task:
    """A split and what is known about it.

    Attributes:
        dataset: name of the data set.
        rule: of the split.
        is_inner: the rule was applied twice.
        split: both parts.
        entities: users and items; None: only ids are known.
        candidates: settings of ours by name, a single one of a log; of a text file, validation inside the training part chooses
            one or their sum, epochs and prior.
        order: of events at the same second; empty: there are no times.
    """

    dataset: str
    rule: str
    is_inner: bool
    split: Split
    entities: Entities | None
    candidates: dict[str, Settings]
    order: str = ""

    def choose(self) -> Chosen:
        """Returns what is fitted; of a text file after a search."""
        if self.entities is None:
            return choose_parts(self.split, self.candidates, is_ordered=self.rule == LOO)
        (settings,) = self.candidates.values()
        return Chosen((settings,), settings.prior, neighbours_std=settings.neighbours_std)

    @property
    def cut_offs(self) -> tuple[int, ...]:
        """Returns k of the means over users; none if publications do not report them."""
        return CUT_OFFS.get(self.rule, ())

    def report(self, seeds: Sequence[int]) -> Report:
        """Returns a report without models."""
        facts = self.split.facts()
        return Report(self.dataset, self.rule, self.is_inner, facts, list(seeds), order=self.order, cut_offs=self.cut_offs)

    def peer_settings(self, name: str) -> dict[str, Any]:
        """Returns the settings of a peer."""
        return text_peer_settings(name) if self.entities is None else peer_settings(name, self.dataset, self.rule)


def log_task(folder: Path, rule: str, *, inner: bool, order: Order | None) -> Task:
    """Returns a split of a folder with users.parquet, items.parquet and behavior.parquet."""
    order = order or default_order(folder, rule)
    split, name = read_split(folder, rule, inner=inner, order=order), folder.name
    return Task(name, rule, inner, split, read_entities(folder), {"chosen": chosen(name, rule)}, order)


def text_task(train: Path, test: Path | None, *, inner: bool) -> Task:
    """Returns leave one out of a file of sequences, or the split of a train and a test file."""
    split = read_sequence_split(train, inner=inner) if test is None else read_pair_split(train, test, inner=inner)
    rule = LOO if test is None else PAIR
    per_user = len(split.user) / max(1, len(split.user_ids))
    candidates = text_candidates(rule, events=len(split.user), items=len(split.item_ids), events_per_user=per_user)
    return Task(train.stem, rule, inner, split, None, candidates)


def run_ours(
    split: Split,
    entities: Entities | None,
    chosen: Chosen,
    seeds: Sequence[int],
    *,
    name: str = OURS,
    inner: bool = False,
    is_ordered: bool = True,
) -> dict[str, list[Run]]:
    """Returns one run of ours per seed, by name; if neighbours or a prior are added, also one of the same vectors without them.

    On the inner split the best prior for it is printed: it is the choice for the outer split.
    """
    runs: dict[str, list[Run]] = {}
    for seed in seeds:
        begin = time.monotonic()
        fitted = [fit_vectors(split, entities, part, seed) for part in chosen.parts]
        vectors = concatenate_vectors([vectors for vectors, _ in fitted])
        speed = 1.0 / sum(1.0 / of_part for _, of_part in fitted)
        std = chosen.neighbours_std
        neighbours = find_neighbours(split, is_ordered=is_ordered, score_std=std) if std else None
        ways = {name: (chosen.prior, neighbours)}
        if neighbours is not None:
            ways[f"{name} without neighbours"] = (chosen.prior, None)
        if chosen.prior is not None:
            ways[f"{name} without prior"] = (None, neighbours)
        for way, (prior, added) in ways.items():
            found = add_neighbours(add_prior(vectors, split, prior), added)
            runs.setdefault(way, []).append(scored(found, split, speed))
            _print_run(way, seed, runs[way][-1], begin)
        if inner and chosen.prior is not None:
            best = best_prior(vectors, split, chosen.parts[0].model.temperature)
            run = scored(add_prior(vectors, split, best), split, speed)
            _print_run(f"{name} with the best prior for this split, {best.to_json()}", seed, run, begin)
    return runs


def run_peer(peer: Peer, split: Split, entities: Entities | None, settings: dict[str, Any], seeds: Sequence[int]) -> list[Run]:
    """Returns one run of a peer per seed; a single one if it does not depend on the seed."""
    runs = []
    for seed in seeds if peer.is_seeded else seeds[:1]:
        begin = time.monotonic()
        recommender, speed = peer.fit(split, settings, seed, entities)
        runs.append(scored(recommender, split, speed))
        _print_run(peer.name, seed, runs[-1], begin)
    return runs


def compare(task: Task, seeds: Sequence[int], models: Sequence[str]) -> Report:
    """Returns the report of the requested models on one split."""
    report, split = task.report(seeds), task.split
    if "ours" in models:
        found = task.choose()
        is_prior_open = task.is_inner and task.entities is not None
        for name, runs in run_ours(
            split, task.entities, found, seeds, inner=is_prior_open, is_ordered=task.rule == LOO
        ).items():
            report.models[name] = summary(runs, ks=task.cut_offs)
        report.settings[OURS] = found.to_json()
    for peer in (peer for peer in PEERS if peer.name in models):
        obstacle = peer.find_obstacle(len(split.item_ids), has_side=task.entities is not None)
        if obstacle is not None:
            report.missing[peer.name] = obstacle
            continue
        given = task.peer_settings(peer.name)
        runs = run_peer(peer, split, task.entities, given, seeds)
        report.models[peer.name] = summary(runs, is_seeded=peer.is_seeded, ks=task.cut_offs)
        report.settings[peer.name] = given
    return report


def ablate(task: Task, seeds: Sequence[int], only: Sequence[str] = ()) -> Report:
    """Returns the report of ours with one thing changed at a time; of several candidates the first."""
    report = task.report(seeds)
    for name, settings in ablations(next(iter(task.candidates.values()))).items():
        if only and not any(part in name for part in only):
            continue
        runs = run_ours(task.split, task.entities, Chosen((settings,), settings.prior), seeds, name=name)[name]
        report.models[name] = summary(runs, ks=task.cut_offs)
        report.settings[name] = settings.to_json()
    return report


def _print_run(name: str, seed: int, run: Run, begin: float) -> None:
    rates = " / ".join(f"{run.rate(variant):.4f}" for variant in run.ranks)
    sys.stderr.write(f"{name}, seed {seed}: {rates}, {time.monotonic() - begin:.0f} s\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--dataset", default="ml-100k", help="folder in it (default: ml-100k)")
    parser.add_argument("--split", default="lastpct-20", help="lastpct-P, loo or temporal-D (default: lastpct-20)")
    parser.add_argument(
        "--order",
        type=Order,
        choices=list(Order),
        help="of events at the same second (default: page for loo if known, else drawn)",
    )
    parser.add_argument("--sequences", type=Path, metavar="FILE", help="a text file of sequences, in place of --data")
    parser.add_argument("--train", type=Path, metavar="FILE", help="a text file of training items, in place of --data")
    parser.add_argument("--test", type=Path, metavar="FILE", help="the text file of held-out items that belongs to --train")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (default: 3)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"any of {','.join(MODELS)} (default: all)")
    parser.add_argument("--inner", action="store_true", help="applies the rule twice: the split on which settings are chosen")
    parser.add_argument(
        "--ablation", nargs="*", metavar="PART", help="changes one thing of ours at a time; only names with these parts"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the requested models and prints the table."""
    parser = _parser()
    given = parser.parse_args(arguments)
    models, seeds = given.models.split(","), range(given.seeds)
    if unknown := sorted(set(models) - set(MODELS)):
        parser.error(f"--models: expected any of {', '.join(MODELS)}, got {', '.join(unknown)}")
    if given.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {given.seeds}")
    if (given.data, given.sequences, given.train).count(None) != 2 or (given.train is None) != (given.test is None):
        parser.error("expected one of --data DIR, --sequences FILE, and --train FILE with --test FILE")
    try:
        if given.data is not None:
            task = log_task(given.data / given.dataset, given.split, inner=given.inner, order=given.order)
        else:
            task = text_task(given.sequences or given.train, given.test, inner=given.inner)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    report = compare(task, seeds, models) if given.ablation is None else ablate(task, seeds, given.ablation)
    sys.stdout.write(f"{report.text()}\n")
    if given.json:
        sys.stdout.write(f"{report.json_line()}\n")


if __name__ == "__main__":
    main()
