"""hit_rate@200 of ours and of peers on MovieLens and on sequences, by one evaluator in one run.

    python -m dssm_assets_tests.benchmarks.quality --data DIR --dataset ml-100k --split lastpct-20
    python -m dssm_assets_tests.benchmarks.quality --sequences FILE

DIR/DATASET holds users.parquet, items.parquet and behavior.parquet. `quality_splits.py` explains the splits, `quality_settings.py`
lists the settings and where they were chosen. Leave-one-out is also reported as published: HR@k and NDCG@k beside published
figures, on MovieLens-1M in the order in which users rated.

FILE is a text file of lines "user item item ...", oldest item first; the last item of each line is held out. Its settings are
fixed up to a choice inside the training part (`quality_choice.py`).

Peers need their libraries (`pip install 'dssm-assets[bench]'`); one that is not installed is reported as missing. `--inner`
scores on the inner split, on which settings are chosen; `--json` prints one JSON object on the last line.

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
from dssm_assets_tests.benchmarks.quality_ours import add_prior, concatenate_vectors, fit_vectors
from dssm_assets_tests.benchmarks.quality_peers import PEERS
from dssm_assets_tests.benchmarks.quality_report import OURS, Report
from dssm_assets_tests.benchmarks.quality_scores import Run, scored, summary
from dssm_assets_tests.benchmarks.quality_settings import Settings, chosen, peer_settings
from dssm_assets_tests.benchmarks.quality_splits import Split, read_split
from dssm_assets_tests.benchmarks.quality_text_settings import TEXT_PEERS, read_sequence_split, text_candidates

MODELS = ("ours", *(peer.name for peer in PEERS))
CUT_OFFS = {"loo": (10, 50, 200)}
"""k of HR@k and NDCG@k, for the split whose publications report them."""


@dataclass(frozen=True)
class Task:
    """A split and what is known about it.

    Attributes:
        dataset: name of the data set.
        rule: of the split.
        is_inner: the rule was applied twice.
        split: both parts.
        entities: users and items; None: a text file.
        candidates: settings of ours by name, a single one of a log; of a text file, validation inside the training part chooses.
    """

    dataset: str
    rule: str
    is_inner: bool
    split: Split
    entities: Entities | None
    candidates: dict[str, Settings]

    def choose(self) -> Chosen:
        """Returns what is fitted; of a text file after a search."""
        if self.entities is None:
            return choose_parts(self.split, self.candidates)
        (settings,) = self.candidates.values()
        return Chosen((settings,), settings.prior, settings.neighbours_std)

    def peer_settings(self, name: str) -> dict[str, Any]:
        """Returns the settings of a peer."""
        return TEXT_PEERS.get(name, {}) if self.entities is None else peer_settings(name, self.dataset, self.rule)


def log_task(folder: Path, rule: str, *, inner: bool) -> Task:
    """Returns a split of a folder with users.parquet, items.parquet and behavior.parquet."""
    settings = {"chosen": chosen(folder.name, rule)}
    return Task(folder.name, rule, inner, read_split(folder, rule, inner=inner), read_entities(folder), settings)


def text_task(path: Path, *, inner: bool) -> Task:
    """Returns leave one out of a file of sequences."""
    split = read_sequence_split(path, inner=inner)
    per_user = len(split.user) / max(1, len(split.user_ids))
    candidates = text_candidates(events=len(split.user), items=len(split.item_ids), events_per_user=per_user)
    return Task(path.stem, "loo", inner, split, None, candidates)


def run_ours(split: Split, entities: Entities | None, chosen: Chosen, seeds: Sequence[int]) -> dict[str, list[Run]]:
    """Returns one run of ours per seed, by name; if neighbours or a prior are added, also one of the same vectors without them."""
    neighbours = find_neighbours(split, chosen.neighbours_std) if chosen.neighbours_std else None
    ways = {OURS: (chosen.prior, neighbours)}
    if neighbours is not None:
        ways[f"{OURS} without neighbours"] = (chosen.prior, None)
    if chosen.prior is not None:
        ways[f"{OURS} without prior"] = (None, neighbours)
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for seed in seeds:
        begin = time.monotonic()
        fitted = [fit_vectors(split, entities, part, seed) for part in chosen.parts]
        vectors = concatenate_vectors([vectors for vectors, _ in fitted])
        speed = 1.0 / sum(1.0 / of_part for _, of_part in fitted)
        for way, (prior, added) in ways.items():
            runs[way].append(scored(add_neighbours(add_prior(vectors, split, prior), added), split, speed))
            _print_run(way, seed, runs[way][-1], begin)
    return runs


def compare(task: Task, seeds: Sequence[int], models: Sequence[str]) -> Report:
    """Returns the report of the requested models on one split."""
    split, cut_offs = task.split, CUT_OFFS.get(task.rule, ())
    report = Report(task.dataset, task.rule, task.is_inner, split.facts(), list(seeds))
    if "ours" in models:
        found = task.choose()
        for name, runs in run_ours(split, task.entities, found, seeds).items():
            report.models[name] = summary(runs, ks=cut_offs)
    for peer in (peer for peer in PEERS if peer.name in models):
        if obstacle := peer.find_obstacle(len(split.item_ids), is_text=task.entities is None):
            report.missing[peer.name] = obstacle
            continue
        settings, runs = task.peer_settings(peer.name), []
        for seed in seeds if peer.is_seeded else seeds[:1]:
            begin = time.monotonic()
            recommender, speed = peer.fit(split, settings, seed)
            runs.append(scored(recommender, split, speed))
            _print_run(peer.name, seed, runs[-1], begin)
        report.models[peer.name] = summary(runs, is_seeded=peer.is_seeded, ks=cut_offs)
    return report


def _print_run(name: str, seed: int, run: Run, begin: float) -> None:
    rates = " / ".join(f"{run.rate(variant):.4f}" for variant in run.ranks)
    print(f"{name}, seed {seed}: {rates}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the requested models and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="folder of the data sets")
    source.add_argument("--sequences", type=Path, metavar="FILE", help="a text file of sequences")
    parser.add_argument("--dataset", default="ml-100k", help="folder in it (default: ml-100k)")
    parser.add_argument("--split", default="lastpct-20", help="lastpct-P, loo or temporal-D (default: lastpct-20)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 (default: 3)")
    parser.add_argument("--models", default=",".join(MODELS), help=f"any of {','.join(MODELS)} (default: all)")
    parser.add_argument("--inner", action="store_true", help="applies the rule twice: the split on which settings are chosen")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given = parser.parse_args(arguments)
    models = given.models.split(",")
    if unknown := sorted(set(models) - set(MODELS)):
        parser.error(f"--models: expected any of {', '.join(MODELS)}, got {', '.join(unknown)}")
    if given.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {given.seeds}")
    try:
        if given.data is not None:
            task = log_task(given.data / given.dataset, given.split, inner=given.inner)
        else:
            task = text_task(given.sequences, inner=given.inner)
    except InputError as error:
        parser.exit(1, f"{error}\n")
    report = compare(task, range(given.seeds), models)
    sys.stdout.write(f"{report.text()}\n")
    if given.json:
        sys.stdout.write(f"{report.json_line()}\n")


if __name__ == "__main__":
    main()
