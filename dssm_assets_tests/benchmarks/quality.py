"""hit_rate@200 of ours and of the peers on MovieLens, by one evaluator in one run.

    python -m dssm_assets_tests.benchmarks.quality --data DIR --dataset ml-100k --split lastpct-20

DIR/DATASET holds users.parquet, items.parquet and behavior.parquet. `quality_splits.py` explains the splits,
`quality_settings.py` lists the settings and where they were chosen. Peers need their libraries (`pip install
'dssm-assets[bench]'`); one that is not installed is reported as missing. `--inner` scores on the inner split, on which settings
are chosen; `--ablation` changes one thing of ours at a time; `--json` prints one JSON object on the last line.

Belongs here: the command. Does not belong here: splits, recommenders, scoring, text.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dssm_assets_tests.benchmarks.quality_features import Entities, read_entities
from dssm_assets_tests.benchmarks.quality_ours import fit_vectors
from dssm_assets_tests.benchmarks.quality_peers import PEERS, Peer
from dssm_assets_tests.benchmarks.quality_prior import add_prior, best_prior
from dssm_assets_tests.benchmarks.quality_report import OURS, Report
from dssm_assets_tests.benchmarks.quality_scores import Run, scored, summary
from dssm_assets_tests.benchmarks.quality_settings import Settings, ablations, chosen, peer_settings
from dssm_assets_tests.benchmarks.quality_splits import Split, read_split

MODELS = ("ours", *(peer.name for peer in PEERS))


def run_ours(
    split: Split, entities: Entities, settings: Settings, seeds: Sequence[int], *, name: str = OURS, inner: bool = False
) -> dict[str, list[Run]]:
    """Returns one run of ours per seed, by name; if there is a prior, also one of the same vectors without it.

    On the inner split the best prior for it is printed: it is the choice for the outer split.
    """
    runs: dict[str, list[Run]] = {}
    for seed in seeds:
        begin = time.monotonic()
        vectors, speed = fit_vectors(split, entities, settings, seed)
        ways = {name: settings.prior}
        if settings.prior is not None:
            ways[f"{name} without prior"] = None
        for way, prior in ways.items():
            runs.setdefault(way, []).append(scored(add_prior(vectors, split, prior), split, speed))
            _print_run(way, seed, runs[way][-1], begin)
        if inner and settings.prior is not None:
            best = best_prior(vectors, split, settings.model.temperature)
            run = scored(add_prior(vectors, split, best), split, speed)
            _print_run(f"{name} with the best prior for this split, {best.to_json()}", seed, run, begin)
    return runs


def run_peer(peer: Peer, split: Split, entities: Entities, settings: dict[str, float], seeds: Sequence[int]) -> list[Run]:
    """Returns one run of a peer per seed; a single one if it does not depend on the seed."""
    runs = []
    for seed in seeds if peer.is_seeded else seeds[:1]:
        begin = time.monotonic()
        recommender, speed = peer.fit(split, settings, seed, entities)
        runs.append(scored(recommender, split, speed))
        _print_run(peer.name, seed, runs[-1], begin)
    return runs


def compare(folder: Path, dataset: str, rule: str, *, inner: bool, seeds: Sequence[int], models: Sequence[str]) -> Report:
    """Returns the report of the requested models on one split."""
    split, entities = read_split(folder, rule, inner=inner), read_entities(folder)
    report = Report(dataset, rule, inner, split.facts(), list(seeds))
    if "ours" in models:
        settings = chosen(dataset, rule)
        for name, runs in run_ours(split, entities, settings, seeds, inner=inner).items():
            report.models[name] = summary(runs)
        report.settings[OURS] = settings.to_json()
    for peer in (peer for peer in PEERS if peer.name in models):
        if not peer.is_installed:
            report.missing[peer.name] = f"{peer.needs} is not installed"
            continue
        given = peer_settings(peer.name, dataset, rule)
        report.models[peer.name] = summary(run_peer(peer, split, entities, given, seeds), is_seeded=peer.is_seeded)
        report.settings[peer.name] = given
    return report


def ablate(folder: Path, dataset: str, rule: str, *, inner: bool, seeds: Sequence[int], only: Sequence[str] = ()) -> Report:
    """Returns the report of ours with one thing changed at a time."""
    split, entities = read_split(folder, rule, inner=inner), read_entities(folder)
    report = Report(dataset, rule, inner, split.facts(), list(seeds))
    base = chosen(dataset, rule)
    for name, settings in ablations(base).items():
        if only and not any(part in name for part in only):
            continue
        report.models[name] = summary(run_ours(split, entities, settings, seeds, name=name)[name])
        report.settings[name] = settings.to_json()
    return report


def _print_run(name: str, seed: int, run: Run, begin: float) -> None:
    rates = " / ".join(f"{run.rate(variant):.4f}" for variant in run.hits)
    sys.stderr.write(f"{name}, seed {seed}: {rates}, {time.monotonic() - begin:.0f} s\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dssm_assets_tests.benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--dataset", default="ml-100k", help="folder in it (default: ml-100k)")
    parser.add_argument("--split", default="lastpct-20", help="lastpct-P, loo or temporal-D (default: lastpct-20)")
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
    folder, models, seeds = given.data / given.dataset, given.models.split(","), range(given.seeds)
    if unknown := sorted(set(models) - set(MODELS)):
        parser.error(f"--models: expected any of {', '.join(MODELS)}, got {', '.join(unknown)}")
    if given.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {given.seeds}")
    if given.ablation is not None:
        report = ablate(folder, given.dataset, given.split, inner=given.inner, seeds=seeds, only=given.ablation)
    else:
        report = compare(folder, given.dataset, given.split, inner=given.inner, seeds=seeds, models=models)
    sys.stdout.write(f"{report.text()}\n")
    if given.json:
        sys.stdout.write(f"{report.json_line()}\n")


if __name__ == "__main__":
    main()
