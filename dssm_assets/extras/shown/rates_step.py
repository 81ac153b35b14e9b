"""The step of the asset `online_rates`: what people took of the lists of a day, and of the days up to it, by variant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.config.evaluation import Takes as TakeSettings
from dssm_assets.core.evaluation.evaluation_tables import MERGED, MODEL, TOTAL_HIT_RATE
from dssm_assets.core.evaluation.rates import rows_of_cell
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.extras.shown.rates import Comparison, compare_variants
from dssm_assets.extras.shown.shown_day import SHOWN, open_database
from dssm_assets.extras.shown.takes import Takes, join_takes
from dssm_assets.steps.workspace import Check, StepResult, Workspace, day_before, days_between, each_day, start_of_day_ms
from dssm_assets.storage.manifest import Manifest

SPANS: Final = (1, 7, 28)
"""Most days, the last one included, over which rates are computed."""
_BEHAVIOR: Final = "behavior_table"
_FLOATS: Final = {
    "rate_per_list": "taken / lists.",
    "rate_per_person": "taken / people.",
    "mean_rank": "Mean position of what was taken.",
    "hit_share": "Fraction of the lists of which something was taken.",
    "difference": "rate_per_list less the first variant's; null if the sample ratio is off.",
    "ci_low": "Lower bound of its 95% interval: delta method, people as the unit.",
    "ci_high": "Upper bound.",
    "p": "p of no difference, two-sided.",
    "ratio_p": "p of the people of all variants under the configured shares.",
    "served_hit_rate": "Of the pairs of user and item taken within the hours: the fraction that the user's list had shown.",
    "offline_hit_rate": "hit_rate@offline_k that the bundle's evaluation day promised.",
}
ONLINE_RATES: Final = TableSpec(
    name="online_rates",
    grain="one row per span of days that ends with the day, and variant",
    key=("span_days", "variant"),
    columns=(
        ColumnSpec("span_days", pa.int32(), "Days of the span."),
        ColumnSpec("variant", pa.string(), "The variant; empty: none."),
        *(ColumnSpec(name, pa.int64(), f"Number of {name}.") for name in ("lists", "people", "items", "taken")),
        *(ColumnSpec(name, pa.float64(), text, True) for name, text in _FLOATS.items()),
        ColumnSpec("offline_k", pa.int32(), "The evaluation.k that is nearest to the mean length of the lists.", True),
        ColumnSpec("bundle_id", pa.string(), "The bundle of most of the rows.", True),
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
    found, rows = dict[str, Comparison](), list[dict[str, Any]]()
    for days in dict.fromkeys(_count_days(inputs[SHOWN.name], ds, most) for most in SPANS):
        takes = _join(workspace, inputs, ds, days)
        one = found[f"{days} day{'s' * (days > 1)}"] = compare_variants(takes, shares)
        common = {"span_days": days, "ratio_p": one.ratio_p}
        rows += [row | common | _find_promise(workspace, row) for row in one.rows]
    table = pa.Table.from_pylist(rows, ONLINE_RATES.schema).sort_by([(name, "ascending") for name in ONLINE_RATES.key])
    manifest = workspace.write_table(ONLINE_RATES, ds, table, inputs.values())
    sentences = {span: one.sentence for span, one in found.items()}
    off = [f"{span}: {one.sentence}" for span, one in found.items() if one.is_off]
    check = Check("sample_ratio", not off, "; ".join(off) or one.sentence, {span: one.ratio_p for span, one in found.items()})
    facts: dict[str, Any] = {**takes.joined, "last_day_of_events": inputs[_BEHAVIOR][-1].ds}
    for row in found["1 day"].rows:
        plotted = {f"{name} {row['variant']}".strip(): row.get(name) for name in ("rate_per_list", "difference")}
        facts |= {name: value for name, value in plotted.items() if value is not None}
    return StepResult(manifest, facts, (check,), _write_report(sentences, table, takes.joined), headline=sentences)


def find_inputs(workspace: Workspace, ds: str) -> dict[str, list[Manifest]]:
    """Returns the stored days that the rates of a day are computed from, by asset: up to 28, and those near these."""
    near, store = _count_near_days(workspace), workspace.tables.partitions
    days = days_between(day_before(ds, SPANS[-1] - 1 + near), day_before(ds, -near))
    workspace.need_all(SHOWN.name, [ds])
    workspace.need_all(_BEHAVIOR, [ds])
    return {name: [*store.find_days(name, days).values()] for name in (SHOWN.name, _BEHAVIOR)}


def _read_settings(workspace: Workspace) -> TakeSettings:
    assert workspace.config.evaluation.shown is not None  # `needs` of the asset's row
    return workspace.config.evaluation.shown


def _count_near_days(workspace: Workspace) -> int:
    return math.ceil(_read_settings(workspace).hours / 24)


def _count_days(shown: Sequence[Manifest], ds: str, most: int) -> int:
    """Returns how many stored days up to a day have its variants without a gap: others are no part of its comparison."""
    variants = {manifest.ds: manifest.facts["variants"] for manifest in shown}
    before = (day_before(ds, number) for number in range(most))
    return len(list(takewhile(lambda day: variants.get(day) == variants[ds], before)))


def _join(workspace: Workspace, inputs: Mapping[str, Sequence[Manifest]], ds: str, days: int) -> Takes:
    settings, first = _read_settings(workspace), day_before(ds, days - 1)
    begin, end = (start_of_day_ms(day, workspace.config.calendar.timezone) for day in (first, day_before(ds, -1)))
    near = day_before(first, _count_near_days(workspace))
    stored = {name: [one for one in manifests if one.ds >= near] for name, manifests in inputs.items()}
    with (
        workspace.tables.partitions.reading([one for some in stored.values() for one in some]),
        open_database(workspace) as database,
    ):
        shown, events = ([workspace.tables.open(one) for one in stored[name]] for name in (SHOWN.name, _BEHAVIOR))
        return join_takes(database, shown, events, names=settings.events, hours=settings.hours, span_ms=(begin, end - 1))


def _find_promise(workspace: Workspace, row: Mapping[str, Any]) -> dict[str, Any]:
    day = (row.get("bundle_id") or "")[:10]
    evaluated = workspace.find(TOTAL_HIT_RATE.name, day) if day else None
    if evaluated is None:
        return {}
    k = min(workspace.config.evaluation.k, key=lambda k: abs(k - row["items"] / row["lists"]))
    rates = rows_of_cell(workspace.tables.read(evaluated), Scope.ALL, k, Population.ALL)
    by_vectors = {variant.name for variant in workspace.config.serving.variants if variant.channels == "vectors"}
    promised = rates.get(MODEL if row["variant"] in by_vectors else MERGED) or rates.get(MODEL)
    return {"offline_k": k, "offline_hit_rate": promised and promised["hit_rate"]}


def _write_report(sentences: Mapping[str, str], rates: pa.Table, joined: Mapping[str, int]) -> str:
    rows = [
        [f"{value:.4f}" if isinstance(value, float) else str(value or "") for value in row.values()]
        for row in rates.to_pylist()
    ]
    table = [f"| {' | '.join(cells)} |" for cells in (rates.column_names, ["---"] * rates.num_columns, *rows)]
    of_events = f"{joined['by_request']:,} by request, {joined['by_person']:,} by person and item"
    how = f"Of {joined['events']:,} events that take an item, these were joined with what was shown: {of_events}."
    return "\n".join([*(f"- **{span}**: {sentence}" for span, sentence in sentences.items()), "", *table, "", how, ""])
