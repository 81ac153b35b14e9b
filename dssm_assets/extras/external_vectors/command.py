"""`dssm-assets evaluate`: score your own user and item vectors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene
from dssm_assets.commands.day_argument import day_argument
from dssm_assets.service.commands.recall import parse_json

if TYPE_CHECKING:
    from dssm_assets.defs.scene import Scene
    from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, VectorEvaluation
    from dssm_assets.steps.workspace import Workspace
    from dssm_assets.terminal import DayRates

METRICS = ("ip", "cosine", "l2")
_EPILOG = (
    "hit_rate@k = sum over users of |topk and truth| / sum over users of |truth|. The search is exact. Ties go to the item that "
    "is first in the file. NDCG has binary relevance and is a mean over users. A user with truth but without a vector counts, with "
    "an empty list. Users without truth do not count. Truth items without a vector count as missed. With --exclude, seen pairs are "
    "neither candidates nor to be found. The column of vectors may have any name if no other column has lists of numbers."
)


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "evaluate", group=Group.LOOK, help="score your own user and item vectors: hit rates against truth", epilog=_EPILOG
    )
    files = parser.add_argument_group("parquet files or folders, at any fsspec URL")
    files.add_argument(
        "--user-vectors", required=True, help="user_id, user_tower_emb: a list of numbers, or a list of such lists"
    )
    files.add_argument("--item-vectors", required=True, help="item_id, item_tower_emb: a list of numbers")
    files.add_argument(
        "--truth",
        required=True,
        help="user_id, item_id: pairs to find; repeated pairs count once. In place of item_id: lists in gt_items, as in the table ground_truth",
    )
    files.add_argument("--items", help="item_id and the columns of --filters")
    files.add_argument("--exclude", dest="seen", metavar="SEEN", help="user_id, item_id: pairs that users had seen before")
    parser.add_argument(
        "--filters",
        type=parse_json,
        help="""conditions on columns of --items: only items that pass are candidates and to be found: '{"in_stock": true}'""",
    )
    parser.add_argument(
        "--day",
        type=day_argument,
        help="the day of the truth; a home has evaluated it. Also prints the home's baselines and lists for the same users",
    )
    add_config_arguments(parser)
    parser.add_argument("-k", type=_cut_offs, default=(10, 50, 100, 200), help="cut-offs (default: 10,50,100,200)")
    parser.add_argument("--metric", choices=METRICS, default="ip", help="score of two vectors (default: ip)")
    parser.add_argument(
        "--bootstrap", type=partial(_whole, most=100_000), default=1000, help="resamples of the 95%% interval (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=partial(_whole, least=0, most=2**63 - 1), default=17, help="seed of the resamples (default: 17)"
    )
    parser.add_argument(
        "--block-size", type=_whole, default=4096, help="vectors searched at once; limits memory (default: 4096)"
    )
    parser.add_argument(
        "--threads", type=partial(_whole, most=1024), default=1, help="blocks searched at the same time (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    out = parser.add_argument_group("files to write, at any fsspec URL")
    out.add_argument("--detail", metavar="OUT.parquet", help="each user's list, hits and misses")
    out.add_argument("--reference-detail", metavar="OUT", help="lists as id, topk_ids, topk_dists, ... (.parquet or .csv)")
    out.add_argument("--reference-total", metavar="OUT", help="one row, hitrate at the largest k (.parquet or .csv)")
    parser.set_defaults(command=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.retrieval.vectors import Metric
    from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, VectorFiles, evaluate_files

    metric = Metric(parsed.metric)
    settings = ExternalSettings(parsed.k, metric, parsed.bootstrap, parsed.seed, parsed.block_size, parsed.threads)
    files = VectorFiles(**{field.name: getattr(parsed, field.name) for field in fields(VectorFiles)})
    home = (
        None if parsed.day is None else _open_home(load_announced_scene(parsed, is_data=parsed.json), parsed.day, settings.ks)
    )
    result = evaluate_files(files, settings)
    beside = None if home is None else _read_beside(*home, result, settings)
    if parsed.json:
        stated = {name: getattr(parsed, name) for name in ("metric", "bootstrap", "seed")}
        of_home = {} if beside is None else {"home": {"day": beside.ds, "results": beside.total.to_pylist()}}
        print(json.dumps({**stated, "results": _rows(result), "who": asdict(result.who), **of_home}, ensure_ascii=False))
        return 0
    _print(result)
    if beside is None:
        print("Is that good? Give --day, the day of the truth, to see a home's baselines for the same users here.")
    else:
        _print_beside(beside, result)
    return 0


def _rows(result: VectorEvaluation) -> list[dict[str, Any]]:
    rates = ("hit_rate", "ci_low", "ci_high", "user_recall", "user_hit_rate", "ndcg", "ndcg_ci_low", "ndcg_ci_high")
    names = ("k", *rates, "hits", "truth_count", "users")
    rows: list[dict[str, Any]] = result.totals.select(list(names)).to_pylist()
    return rows


def _open_home(scene: Scene, day: str, ks: Sequence[int]) -> tuple[Workspace, str]:
    """Opens a home and checks its evaluated day, so that errors come before hours of evaluation."""
    from dssm_assets.commands.hit_rates import choose_evaluated_day
    from dssm_assets.extras.external_vectors.home_rates import common_cutoffs
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(scene.loaded)
    ds = choose_evaluated_day(workspace, day)
    common_cutoffs(workspace, ds, ks)
    return workspace, ds


def _read_beside(workspace: Workspace, ds: str, result: VectorEvaluation, settings: ExternalSettings) -> DayRates:
    from dssm_assets.commands.hit_rates import read_day
    from dssm_assets.core.names import Scope
    from dssm_assets.extras.external_vectors.home_rates import read_home_rates

    total = read_home_rates(workspace, ds, result.counts, Scope(result.who.scope), settings)
    return replace(read_day(workspace, ds), total=total)


def _print_beside(day: DayRates, result: VectorEvaluation) -> None:
    import pyarrow as pa
    from rich.console import Console

    from dssm_assets.core.evaluation.rates import rows_of_cell
    from dssm_assets.core.names import Population
    from dssm_assets.extras.external_vectors.external_evaluation import OWN
    from dssm_assets.terminal import rates_table

    scope = day.total.column("scope")[0].as_py()
    own = result.totals.set_column(1, "scope", pa.repeat(scope, result.totals.num_rows))
    total = pa.concat_tables([own, day.total])
    rows = {k: rows_of_cell(total, scope, k, Population.ALL) for k in day.ks}
    heading = f"\nhit_rate@k on {day.label}, {result.who.users_counted:,} users; scope {scope}, known and unknown items"
    Console().print(heading, rates_table(rows, {}, OWN, day.spans), sep="\n", highlight=False)
    print(
        f"interval: of @{day.ks[-1]}. Your vectors rank your {result.who.corpus_items:,} items, the others rank the home's items."
    )


def _print(result: VectorEvaluation) -> None:
    lines: list[tuple[str, ...]] = [("k", "hit_rate", "95% interval", "user_recall", "user_hit_rate", "NDCG", "hits", "truth")]
    for row in _rows(result):
        hit_rate, *others = (f"{row[name]:.4f}" for name in ("hit_rate", "user_recall", "user_hit_rate", "ndcg"))
        between = f"{row['ci_low']:.4f}-{row['ci_high']:.4f}"
        lines.append((str(row["k"]), hit_rate, between, *others, f"{row['hits']:,}", f"{row['truth_count']:,}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    print("\n".join(_describe_counted(result)))


def _describe_counted(result: VectorEvaluation) -> list[str]:
    who = result.who
    named = f" ({who.first_users_without_vector})" if who.users_without_vector else ""
    lines = [
        f"Users counted: {who.users_counted:,}, over {who.corpus_items:,} items.",
        f"Of these, users without a vector; all their truth is missed: {who.users_without_vector:,}{named}.",
        f"Missed truth pairs, because their item has no vector: {who.truth_pairs_outside_corpus:,}.",
        f"Not counted: {who.users_without_truth:,} users without truth; {who.truth_rows_repeated:,} repeated rows of truth.",
    ]
    if who.scope != "all":
        left_out = f"{who.truth_pairs_seen:,} pairs seen before, {who.users_whose_truth_was_seen:,} users without other pairs"
        lines.append(f"Seen items are neither candidates nor to be found. Not counted: {left_out}.")
    return lines


def _cut_offs(text: str) -> tuple[int, ...]:
    return tuple(sorted({_whole(part, most=100_000) for part in text.split(",")}))


def _whole(text: str, least: int = 1, most: int = 1_000_000) -> int:
    digits = text.strip()
    if not digits.isdecimal() or len(digits) > 20 or not least <= int(digits) <= most:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most:,}, got {text[:40]!r}")
    return int(digits)
