"""The table of fitted weights: contract, from merges to rows and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.channels.merge import DEFAULT_INTERCEPT, DEFAULT_WEIGHTS, Merge, Term, terms_of
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.schema import ColumnSpec, TableSpec

INTERCEPT: Final = "intercept"
"""The row of the intercept, in columns channel and signal."""

CHANNEL_WEIGHTS: Final = TableSpec(
    name="channel_weights",
    grain="one row per merged list and term of its log-odds, and one for its intercept",
    key=("list_name", "channel", "signal", "is_own_only"),
    columns=(
        ColumnSpec("list_name", pa.string(), "merged: of all channels; merged_without_X: of the others."),
        ColumnSpec("channel", pa.string(), "The channel that says it; intercept: none."),
        ColumnSpec("signal", pa.string(), "What it says of an item; core/channels defines each."),
        ColumnSpec("is_own_only", pa.bool_(), "Counts in addition for items of the user's history."),
        ColumnSpec(
            "weight", pa.float64(), "What one unit of the signal adds to the log-odds that the user interacts with the item."
        ),
        ColumnSpec("default_weight", pa.float64(), "What it adds where no day was held out to fit on."),
    ),
)


def to_table(merges: Sequence[Merge]) -> pa.Table:
    """Returns the rows of merges, sorted by key."""
    rows: list[dict[str, Any]] = []
    for merge in merges:
        rows.append(_row(merge.name, INTERCEPT, INTERCEPT, False, merge.intercept, DEFAULT_INTERCEPT))
        for term, weight in merge.weights.items():
            rows.append(_row(merge.name, str(term.channel), term.signal, term.is_own_only, weight, DEFAULT_WEIGHTS[term]))
    rows.sort(key=lambda row: tuple(row[key] for key in CHANNEL_WEIGHTS.key))
    schema = pa.schema([(column.name, column.type) for column in CHANNEL_WEIGHTS.columns])
    return pa.Table.from_pylist(rows, schema)


def from_rows(rows: Sequence[Mapping[str, Any]], channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns the merges of stored rows. A term without a row, as in tables of earlier versions, counts 0.

    Args:
        rows: of the table, or the same from a bundle.
        channels: all channels in their order, which the channels of each merge keep.
    """
    merges = []
    for name in dict.fromkeys(row["list_name"] for row in rows):
        own = [row for row in rows if row["list_name"] == name]
        weights = {
            Term(ChannelName(row["channel"]), row["signal"], row["is_own_only"]): float(row["weight"])
            for row in own
            if row["channel"] != INTERCEPT
        }
        (intercept,) = (float(row["weight"]) for row in own if row["channel"] == INTERCEPT)
        kept = tuple(one for one in channels if one in {term.channel for term in weights})
        merges.append(Merge(name, kept, dict.fromkeys(terms_of(kept), 0.0) | weights, intercept))
    return merges


def _row(name: str, channel: str, signal: str, is_own_only: bool, weight: float, default: float) -> dict[str, Any]:
    return {
        "list_name": name,
        "channel": channel,
        "signal": signal,
        "is_own_only": is_own_only,
        "weight": weight,
        "default_weight": default,
    }
