"""`dssm-assets evaluate`: score your own user and item vectors."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.service.commands.recall import parse_json

if TYPE_CHECKING:
    from dssm_assets.extras.external_vectors.external_evaluation import VectorEvaluation

METRICS = ("ip", "cosine", "l2")
_EPILOG = (
    "hit_rate@k = sum over users of |topk and truth| / sum over users of |truth|. The search is exact; ties go to the item that "
    "is first in the file. NDCG has binary relevance and is a mean over users. A user with truth and without a vector counts with an empty list. Users without truth do not count. "
    "Truth items without a vector count as missed. With --exclude, seen pairs are neither candidates nor to be found. "
    "Vectors may have another name, if no other column has lists of numbers."
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
    files.add_argument("--truth", required=True, help="user_id, item_id: what users interacted with; repeated pairs count once")
    files.add_argument("--items", help="item_id and the columns of --filters")
    files.add_argument("--exclude", dest="seen", metavar="SEEN", help="user_id, item_id: what users had seen before")
    parser.add_argument(
        "--filters",
        type=parse_json,
        help="""conditions on columns of --items: only items that pass are candidates and to be found: '{"in_stock": true}'""",
    )
    parser.add_argument("-k", type=_cut_offs, default=(10, 50, 100, 200), help="cut-offs (default: 10,50,100,200)")
    parser.add_argument("--metric", choices=METRICS, default="ip", help="how vectors are compared (default: ip)")
    parser.add_argument(
        "--bootstrap", type=partial(_whole, most=100_000), default=1000, help="resamples of the 95%% interval (default: 1000)"
    )
    parser.add_argument(
        "--seed", type=partial(_whole, least=0, most=2**63 - 1), default=17, help="seed of the resamples (default: 17)"
    )
    parser.add_argument(
        "--block-size", type=_whole, default=4096, help="vectors searched at once, which bounds memory (default: 4096)"
    )
    parser.add_argument(
        "--threads", type=partial(_whole, most=1024), default=1, help="blocks searched at the same time (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object only")
    out = parser.add_argument_group("files to write, at any fsspec URL")
    out.add_argument("--detail", metavar="OUT.parquet", help="each user's list, hits and misses")
    out.add_argument("--reference-detail", metavar="OUT", help="the same as id, topk_ids, topk_dists, ... (.parquet or .csv)")
    out.add_argument("--reference-total", metavar="OUT", help="one row, hitrate at the largest k (.parquet or .csv)")
    parser.set_defaults(command=_evaluate)


def _evaluate(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.retrieval.vectors import Metric
    from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, VectorFiles, evaluate_files

    metric = Metric(parsed.metric)
    settings = ExternalSettings(parsed.k, metric, parsed.bootstrap, parsed.seed, parsed.block_size, parsed.threads)
    files = VectorFiles(**{field.name: getattr(parsed, field.name) for field in fields(VectorFiles)})
    result = evaluate_files(files, settings)
    if parsed.json:
        stated = {name: getattr(parsed, name) for name in ("metric", "bootstrap", "seed")}
        print(json.dumps({**stated, "results": _rows(result), "who": asdict(result.who)}, ensure_ascii=False))
    else:
        _print(result)
    return 0


def _rows(result: VectorEvaluation) -> list[dict[str, Any]]:
    rates = ("hit_rate", "ci_low", "ci_high", "user_recall", "user_hit_rate", "ndcg", "ndcg_ci_low", "ndcg_ci_high")
    names = ("k", *rates, "hits", "truth_count", "users")
    rows: list[dict[str, Any]] = result.totals.select(list(names)).to_pylist()
    return rows


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
        f"Of these, users without a vector, all of whose truth is missed: {who.users_without_vector:,}{named}.",
        f"Truth pairs whose item has no vector, missed: {who.truth_pairs_outside_corpus:,}.",
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
