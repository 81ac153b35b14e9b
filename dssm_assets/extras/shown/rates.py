"""The rates of each variant, its difference from the first one, and the sentence about both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dssm_assets.extras.shown.statistics import OFF_RATIO, Ratio, compare, sample_ratio_p
from dssm_assets.extras.shown.takes import Takes

NONE = ""
"""The variant of people who are in none."""


@dataclass(frozen=True)
class Comparison:
    """The variants of some lists.

    Attributes:
        rows: one per variant, like `online_rates` without days and bundles; the control first.
        ratio_p: p of the people of each variant under the configured shares; None with fewer than two variants.
        sentence: what a reader needs.
    """

    rows: list[dict[str, Any]]
    ratio_p: float | None
    sentence: str

    @property
    def is_off(self) -> bool:
        return self.ratio_p is not None and self.ratio_p < OFF_RATIO


def compare_variants(takes: Takes, shares: Mapping[str, float]) -> Comparison:
    """Returns the rates of each variant, compared with the first of `shares` (variant -> configured share of people).

    If the sample ratio is off, no variant is compared: the groups differ by more than their lists.
    """
    logged = pc.unique(takes.people.column("variant")).to_pylist()
    names = list(dict.fromkeys([*(shares if set(shares) & set(logged) else ()), *logged]))
    rows, ratios = list[dict[str, Any]](), dict[str, Ratio]()
    for name in names:
        people = takes.people.filter(pc.equal(takes.people.column("variant"), name))
        columns = {column: people.column(column).to_numpy() for column in people.column_names[2:]}
        ratios[name] = Ratio.of_people(columns["taken"], columns["lists"])
        rows.append({"variant": name, "people": people.num_rows} | _sum_up(columns, people.num_rows))
    drawn = [row for row in rows if row["variant"] in shares]
    ratio_p = None
    if len(drawn) > 1:
        ratio_p = sample_ratio_p([row["people"] for row in drawn], [shares[row["variant"]] for row in drawn])
    found = Comparison(rows, ratio_p, "")
    compared = [row for row in rows if row["variant"] != NONE]
    for row in compared[1:] if not found.is_off else ():
        difference = compare(ratios[compared[0]["variant"]], ratios[row["variant"]])
        names_of = ("difference", "ci_low", "ci_high", "p")
        row |= dict(zip(names_of, (difference.value, difference.low, difference.high, difference.p), strict=True))
    return Comparison(rows, ratio_p, _describe(compared or rows, drawn, found))


def _sum_up(columns: Mapping[str, Any], people: int) -> dict[str, Any]:
    sums = {name: int(values.sum()) for name, values in columns.items()}
    lists, taken = sums["lists"], sums["taken"]
    return {
        **{name: sums[name] for name in ("lists", "items", "taken")},
        "rate_per_list": taken / lists if lists else None,
        "rate_per_person": taken / people if people else None,
        "mean_rank": sums["rank_sum"] / taken if taken else None,
        "hit_share": sums["lists_with_hit"] / lists if lists else None,
    }


def _describe(compared: Sequence[Mapping[str, Any]], drawn: Sequence[Mapping[str, Any]], found: Comparison) -> str:
    """Writes "b takes .0121 for .0149 of a, -.0028 [-.0041, -.0015]; groups 50.2 / 49.8, as expected (p .41)"."""
    if not compared:
        return "nothing was shown"
    control, *others = compared
    whose = f" of {control['variant']}" if control["variant"] != NONE else ""
    parts = [
        f"{row['variant']} takes {_write(row['rate_per_list'])} for {_write(control['rate_per_list'])}{whose}, "
        f"{_write(row['difference'], sign='+')} [{_write(row['ci_low'])}, {_write(row['ci_high'])}]"
        for row in others
        if row.get("difference") is not None and np.isfinite(row["difference"])
    ]
    if not others:
        parts.append(f"{_write(control['rate_per_list'])} is taken of a list{whose}")
    if found.ratio_p is not None:
        people = sum(row["people"] for row in drawn)
        groups = " / ".join(f"{100 * row['people'] / people:.1f}" for row in drawn)
        verdict = "not as configured" if found.is_off else "as expected"
        parts.append(f"groups {groups}, {verdict} (p {_write_p(found.ratio_p)})")
    return "; ".join([*parts, "no variant is compared"] if found.is_off else parts)


def _write(value: float | None, sign: str = "-") -> str:
    """Writes a rate with four digits and without the zero before the point."""
    return "none" if value is None else f"{value:{sign}.4f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:{sign}.4f}"


def _write_p(p: float) -> str:
    return "< .0001" if p < 0.0001 else f"{p:.4f}"[1:] if p < 0.01 else f"{p:.2f}".removeprefix("0")
