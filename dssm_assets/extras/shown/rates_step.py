"""The step of the asset `online_rates`: what people took of the lists of a day, and of the days up to it, by variant.

Several days are one comparison only as long as they have the same variants: a span ends where these change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.config.evaluation import Takes as TakeSettings
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, TOTAL_HIT_RATE
from dssm_assets.core.evaluation.rates import rows_of_cell
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.extras.shown.rates import Comparison, compare_variants
from dssm_assets.extras.shown.shown_day import SHOWN, spilling_database
from dssm_assets.extras.shown.takes import Takes, join_takes
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, days_between, each_day, start_of_day_ms
from dssm_assets.storage.manifest import Manifest

SPANS: Final = (1, 7, 28)
"""Days, the last one included, over which rates are computed."""
CHECK: Final = "sample_ratio"
_BEHAVIOR: Final = "behavior_table"
_FLOATS: Final = {
    "rate_per_list": "taken / lists.",
    "rate_per_person": "taken / people.",
    "mean_rank": "Mean position of what was taken; null: nothing.",
    "hit_share": "Fraction of the lists of which something was taken.",
    "difference": "rate_per_list less the first variant's; null for that one, without variants, and if the sample ratio is off.",
    "ci_low": "Lower bound of its 95% interval (delta method, people as the unit).",
    "ci_high": "Upper bound.",
    "p": "p of no difference, two-sided.",
    "ratio_p": "p of the variants' people under the configured shares; null without variants.",
    "served_hit_rate": "Fraction of the pairs of user and item taken within the hours that a list had shown.",
    "offline_hit_rate": "hit_rate@offline_k that the evaluation day of the bundle promised.",
}
ONLINE_RATES: Final = TableSpec(
    name="online_rates",
    grain="one row per span of days that ends with the day and variant",
    key=("span_days", "variant"),
    columns=(
        ColumnSpec("span_days", pa.int32(), "Days of the span."),
        ColumnSpec("variant", pa.string(), "The variant; empty: people in none."),
        *(ColumnSpec(name, pa.int64(), f"Number of {name}.") for name in ("lists", "people", "items", "taken")),
        *(ColumnSpec(name, pa.float64(), text, True) for name, text in _FLOATS.items()),
        ColumnSpec(
            "offline_k", pa.int32(), "The cut-off of evaluation.k that is nearest to the mean length of the lists.", True
        ),
        ColumnSpec("bundle_id", pa.string(), "The bundle of most of the lists.", True),
    ),
)


@each_day
def online_rates(workspace: Workspace, ds: str) -> StepResult:
    """Computes the rates of the spans that end with a day, and checks the sample ratio of each.

    Raises:
        PartitionMissingError: the day itself is not stored in `shown` or behavior_table.
    """
    inputs = find_inputs(workspace, ds)
    shares = {variant.name: variant.share for variant in workspace.config.serving.variants}
    found, rows = dict[int, Comparison](), list[dict[str, Any]]()
    for days in dict.fromkeys(_count_days(inputs[SHOWN.name], ds, most) for most in SPANS):
        takes = _join(workspace, inputs, ds, days)
        found[days] = compare_variants(takes, shares)
        bundles = _describe_bundles(workspace, takes)
        common = {"span_days": days, "ratio_p": found[days].ratio_p}
        rows += [{**row, **common, **bundles.get(row["variant"], {})} for row in found[days].rows]
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: (row["span_days"], row["variant"])), ONLINE_RATES.schema)
    manifest = workspace.write_table(ONLINE_RATES, ds, table, inputs.values(), settings=describe_settings(workspace))
    sentences = {f"{days} day{'s' * (days > 1)}": one.sentence for days, one in found.items()}
    off = [f"{days} days: {one.sentence}" for days, one in found.items() if one.is_off]
    ps = {f"p of {days} days": one.ratio_p for days, one in found.items()}
    check = Check("sample_ratio", not off, "; ".join(off) or found[days].sentence, ps)
    facts = {f"{name}_{row['variant']}": row.get(name) for row in found[1].rows for name in ("rate_per_list", "difference")}
    facts = {name: value for name, value in facts.items() if value is not None}
    facts |= {f"events_{name}": count for name, count in takes.joined.items()} | {"events_to": inputs[_BEHAVIOR][-1].ds}
    return StepResult(manifest, facts, (check,), _write_report(sentences, table, takes.joined), headline=sentences)


def find_inputs(workspace: Workspace, ds: str) -> dict[str, list[Manifest]]:
    """Returns the stored days that the rates of a day are computed from, by asset: up to 28, and those near these."""
    near = _count_near_days(workspace)
    days = days_between(day_before(ds, SPANS[-1] - 1 + near), day_before(ds, -near))
    for asset in (SHOWN.name, _BEHAVIOR):
        workspace.need(asset, ds)
    return {name: [*workspace.tables.partitions.find_days(name, days).values()] for name in (SHOWN.name, _BEHAVIOR)}


def describe_settings(workspace: Workspace) -> dict[str, Any]:
    """Returns the settings that the rates follow from."""
    shares = {variant.name: variant.share for variant in workspace.config.serving.variants}
    return {"shown": _read_settings(workspace).model_dump(), "shares": shares}


def _read_settings(workspace: Workspace) -> TakeSettings:
    if workspace.config.evaluation.shown is None:
        raise ConfigError(Fault("key evaluation.shown", "events that take an item", "none", "set it"))
    return workspace.config.evaluation.shown


def _count_near_days(workspace: Workspace) -> int:
    """Returns the days after a list on which it may still be taken; lists of as many days before compete for its items."""
    return math.ceil(_read_settings(workspace).hours / 24)


def _count_days(shown: Sequence[Manifest], ds: str, most: int) -> int:
    """Returns how many stored days up to a day, at most so many, have its variants without a gap."""
    variants = {manifest.ds: manifest.facts["variants"] for manifest in shown}
    before = (day_before(ds, number) for number in range(most))
    return len(list(takewhile(lambda day: variants.get(day) == variants[ds], before)))


def _join(workspace: Workspace, inputs: Mapping[str, Sequence[Manifest]], ds: str, days: int) -> Takes:
    settings, first = _read_settings(workspace), day_before(ds, days - 1)
    begin, end = (start_of_day_ms(day, workspace.config.calendar.timezone) for day in (first, day_before(ds, -1)))
    near = day_before(first, _count_near_days(workspace))
    chosen = {name: [one for one in manifests if one.ds >= near] for name, manifests in inputs.items()}
    stored = [one for manifests in chosen.values() for one in manifests]
    with workspace.tables.partitions.reading(stored), spilling_database(workspace) as database:
        shown, events = ([workspace.tables.open(one) for one in chosen[name]] for name in (SHOWN.name, _BEHAVIOR))
        return join_takes(database, shown, events, names=settings.events, hours=settings.hours, span_ms=(begin, end - 1))


def _describe_bundles(workspace: Workspace, takes: Takes) -> dict[str, dict[str, Any]]:
    """Returns variant -> its most used bundle, the hit rate that the bundle's evaluation promised, and that of what was served."""
    by_vectors = {variant.name for variant in workspace.config.serving.variants if variant.channels == "vectors"}
    found = dict[str, dict[str, Any]]()
    for row in takes.bundles.to_pylist():
        if row["variant"] in found:
            continue  # fewer of its lists are from this bundle
        found[row["variant"]] = {"bundle_id": row["bundle_id"]}
        day = (row["bundle_id"] or "")[:10]
        evaluated = workspace.find(TOTAL_HIT_RATE.name, day) if day else None
        k = min(workspace.config.evaluation.k, key=lambda k: abs(k - row["items"] / row["lists"]))
        if evaluated is not None:
            rates = rows_of_cell(workspace.tables.read(evaluated), Scope.ALL, k, Population.ALL)
            promised = rates.get(MODEL if row["variant"] in by_vectors else MERGED, rates.get(MODEL))
            found[row["variant"]] |= {"offline_k": k, "offline_hit_rate": promised and promised["hit_rate"]}
    for row in takes.truth.to_pylist():
        found[row["variant"]]["served_hit_rate"] = row["found"] / row["wanted"]
    return found


def _write_report(sentences: Mapping[str, str], rates: pa.Table, joined: Mapping[str, int]) -> str:
    """Writes the sentences, the rates as a table, and how events were joined, as markdown."""
    columns = [name for name in rates.column_names if name not in ("ci_low", "ci_high", "ratio_p")]
    rows = [[_write_cell(row[name]) for name in columns] for row in rates.to_pylist()]
    table = [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]
    of_events = f"{joined['by_request']:,} by request and {joined['by_person']:,} by person and item"
    how = f"Of {joined['events']:,} events that take an item, {of_events} were joined with what was shown."
    return "\n".join([*(f"- **{days}**: {sentence}" for days, sentence in sentences.items()), "", *table, "", how, ""])


def _write_cell(value: Any) -> str:
    return (
        ""
        if value is None
        else f"{value:.4f}"
        if isinstance(value, float)
        else f"{value:,}"
        if isinstance(value, int)
        else value
    )
