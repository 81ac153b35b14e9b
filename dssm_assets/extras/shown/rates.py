"""The rates of each variant, its difference from the first one, and the sentence about both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dssm_assets.extras.shown.statistics import OFF_RATIO, Ratio, compare, sample_ratio_p
from dssm_assets.extras.shown.takes import Takes


@dataclass(frozen=True)
class Comparison:
    """The variants of some lists.

    Attributes:
        rows: one per variant, the control first, with the columns of `online_rates` but those of days and offline rates.
        ratio_p: p of the people of each variant under the configured shares; None with fewer than two variants.
    """

    rows: list[dict[str, Any]]
    ratio_p: float | None
    is_off: bool
    sentence: str


def compare_variants(takes: Takes, shares: Mapping[str, float]) -> Comparison:
    """Returns the rates of each variant, compared with the first of `shares` (variant -> configured share of people)."""
    logged = {row["variant"]: row for row in takes.variants.to_pylist()}
    names = [*(shares if shares.keys() & logged.keys() else ()), *sorted(logged.keys() - shares.keys())]
    rows, ratios = dict[str, dict[str, Any]](), dict[str, Ratio]()
    for name in names:
        people = takes.people.filter(pc.equal(takes.people.column("variant"), name)).drop_columns("variant")
        columns = {column: people.column(column).to_numpy() for column in people.column_names}
        ratios[name] = Ratio.of_people(columns["taken"], columns["lists"])
        rows[name] = _sum_up(columns, people.num_rows) | logged.get(name, {"variant": name})
    sizes = [rows[name]["people"] for name in shares if name in rows]
    ratio_p = sample_ratio_p(sizes, list(shares.values())) if len(sizes) > 1 else None
    is_off = ratio_p is not None and ratio_p < OFF_RATIO
    compared = [name for name in names if name in shares] or [name for name in names if name]
    for name in () if is_off else compared[1:]:
        one = compare(ratios[compared[0]], ratios[name])
        if np.isfinite(one.value):
            rows[name] |= {"difference": one.value, "ci_low": one.low, "ci_high": one.high, "p": one.p}
    parts = _describe_rates([rows[name] for name in compared or names])
    if ratio_p is not None:
        groups = " / ".join(f"{100 * size / sum(sizes):.1f}" for size in sizes)
        parts.append(f"groups {groups}, {'not as configured' if is_off else 'as expected'} (p {_write_p(ratio_p)})")
    if is_off:
        parts.append("no variant is compared")
    return Comparison(list(rows.values()), ratio_p, is_off, "; ".join(parts))


def _sum_up(columns: Mapping[str, Any], people: int) -> dict[str, Any]:
    sums = {name: int(values.sum()) for name, values in columns.items()}
    lists, taken = sums["lists"], sums["taken"]
    return {
        **{name: sums[name] for name in ("lists", "items", "taken")},
        "people": people,
        "rate_per_list": taken / lists if lists else None,
        "rate_per_person": taken / people if people else None,
        "mean_rank": sums["rank_sum"] / taken if taken else None,
        "hit_share": sums["hits"] / lists if lists else None,
    }


def _describe_rates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["nothing was shown"]
    control, whose = _write(rows[0]["rate_per_list"]), f" of {rows[0]['variant']}" if rows[0]["variant"] else ""
    parts = [
        f"{row['variant']} takes {_write(row['rate_per_list'])} for {control}{whose}, "
        f"{_write(row['difference'], '+')} [{_write(row['ci_low'])}, {_write(row['ci_high'])}]"
        for row in rows
        if "difference" in row
    ]
    return parts if len(rows) > 1 else [f"{control} is taken of a list"]


def _write(value: float | None, sign: str = "-") -> str:
    if value is None:
        return "none"
    rounded = round(value, 4) + 0.0  # no -.0000
    return f"{rounded:{sign}.4f}".replace("0.", ".", int(abs(rounded) < 1))


def _write_p(p: float) -> str:
    return "< .0001" if p < 0.0001 else f"{p:.{4 if p < 0.01 else 2}f}".removeprefix("0")
