"""Chooses the people whom a report shows, and describes single people, for the report and the page of `dssm-assets explore`.

Shapes: U evaluated users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import Mask
from dssm_assets.core.columns import TRUTH_COUNT
from dssm_assets.core.evaluation.evaluation_tables import MODEL, hits_column
from dssm_assets.core.evaluation.labels import display_name
from dssm_assets.core.evaluation.rates import integers
from dssm_assets.core.evaluation.report import cell

NUM_TYPICAL: Final = 3
SHOWN_ITEMS: Final = 6
"""A report shows at most so many items of a person."""


@dataclass(frozen=True)
class Found:
    """The number of one person's items that each list found.

    Attributes:
        hits: scorer -> hits. The served list is first, then the baseline to compare with, if there is one.
    """

    user_id: Any
    to_find: int
    hits: Mapping[str, int]

    def describe(self) -> str:
        """Returns a sentence such as "5 of 9 found by the merged list; EASE would find 4."."""
        (served, found), *others = self.hits.items()
        more = "".join(f"; {display_name(name)} would find {count}" for name, count in others)
        return f"{found} of {self.to_find} found by the {display_name(served)}{more}."


def describe_ranks(ranks: Mapping[str, int], depth: int) -> str:
    """Describes an item's ranks in some lists, best rank first. Rank 0: the item is not among the first `depth`.

    By hand: rank 412 in the merged list, 37 in EASE's, 0 in popularity's: "rank 37 by EASE; 412 by merged list".
    """
    found = sorted((rank, display_name(name)) for name, rank in ranks.items() if rank)
    if not found:
        return f"not among the first {depth:,} by " + (display_name(next(iter(ranks))) if len(ranks) == 1 else "any list")
    return "rank " + "; ".join(f"{rank:,} by {name}" for rank, name in found)


def choose_people(of_served: pa.Table, of_baseline: pa.Table, k: int, is_hidden: Mask) -> dict[str, int]:
    """Returns label -> row of a user: typical users, and the users with the best and the worst gain over a baseline.

    A typical user is close to the median fraction found, then to the median number of items to find. Ties go to the first.

    Args:
        of_served, of_baseline: the served list's and the baseline's rows of hit_counts, for the same users [U].
        is_hidden: bool [U], marks users who must not be shown.
    """
    hits, to_find = integers(of_served, hits_column(k)), integers(of_served, TRUTH_COUNT)
    gain, share = hits - integers(of_baseline, hits_column(k)), hits / to_find
    rows = np.flatnonzero(~is_hidden)
    if not len(rows):
        return {}
    best, worst = int(rows[np.argmax(gain[rows])]), int(rows[np.argmin(gain[rows])])
    chosen = {"Best gain": best} | ({"Worst gain": worst} if gain[worst] < gain[best] else {})
    rows = rows[~np.isin(rows, list(chosen.values()))]
    off = [np.abs(values[rows] - np.median(values[rows])) for values in (to_find, share)] if len(rows) else [rows]
    typical = rows[np.lexsort(off)[:NUM_TYPICAL]]
    return {**{f"Typical {number}": int(row) for number, row in enumerate(typical, 1)}, **chosen}


@dataclass(frozen=True)
class ShownPerson:
    """One person of a report.

    Attributes:
        had: titles of the last items before the day, newest first.
        took: title of each item to find and its place in the model's list, best rank first.
    """

    name: str
    found: Found
    had: Sequence[str]
    took: Sequence[tuple[str, str]]


def people_section(people: Sequence[ShownPerson], ds: str) -> str:
    """Returns the section on people as Markdown, at most 60 lines."""
    parts = [
        "## Five people",
        "Typical: near the median of the items to find and of the fraction found. Gain: hits more or fewer than the best baseline's. "
        f"Ranks are of the {display_name(MODEL)}; all lists, and why: `dssm-assets explore`, day {ds}.",
    ]
    for one in people:
        had = ", ".join(cell(title) for title in one.had[:SHOWN_ITEMS]) or "nothing in the last days"
        took = [f"  - {cell(title)}: {where}" for title, where in one.took[:SHOWN_ITEMS]]
        head = f"**{one.name}, {cell(str(one.found.user_id))}**: {one.found.describe()}"
        parts.append("\n".join([head, "", f"- Had lately: {had}", f"- Took {len(one.took)}, the first {len(took)}:", *took]))
    return "\n\n".join(parts)
