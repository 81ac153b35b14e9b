"""The table of fitted weights: contract, from merges to rows and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from dssm_assets.core.channels.merge import DEFAULT_INTERCEPT, DEFAULT_WEIGHTS, Merge, Signal, Term
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.schema import ColumnSpec, TableSpec

INTERCEPT: Final = "intercept"
"""The row of the intercept, in columns channel and signal."""
NONE: Final = ""
"""Other channel and signal of a term that is no product."""

CHANNEL_WEIGHTS: Final = TableSpec(
    name="channel_weights",
    grain="one row per merged list and term of its log-odds, and one for its intercept",
    key=("list_name", "channel", "signal", "other_channel", "other_signal"),
    columns=(
        ColumnSpec("list_name", pa.string(), "merged: of all channels; merged_without_X: of the others."),
        ColumnSpec("channel", pa.string(), "The channel that says it; intercept: none."),
        ColumnSpec("signal", pa.string(), "What it says of an item; core/channels defines each."),
        ColumnSpec("other_channel", pa.string(), "Of a product of two signals, the channel of the second one; else empty."),
        ColumnSpec("other_signal", pa.string(), "The second one; the same as the first in a square."),
        ColumnSpec(
            "weight",
            pa.float64(),
            "What one unit of the signal, or of the product, adds to the log-odds that the user interacts with the item.",
        ),
        ColumnSpec("default_weight", pa.float64(), "What it adds where no day was held out to fit on."),
    ),
)


def to_table(merges: Sequence[Merge]) -> pa.Table:
    """Returns the rows of merges, sorted by key."""
    rows: list[dict[str, Any]] = []
    for merge in merges:
        rows.append(_row(merge.name, (INTERCEPT, INTERCEPT), None, merge.intercept, DEFAULT_INTERCEPT))
        for term, weight in merge.weights.items():
            rows.append(_row(merge.name, term.signal, term.other, weight, DEFAULT_WEIGHTS.get(term, 0.0)))
    rows.sort(key=lambda row: tuple(row[key] for key in CHANNEL_WEIGHTS.key))
    schema = pa.schema([(column.name, column.type) for column in CHANNEL_WEIGHTS.columns])
    return pa.Table.from_pylist(rows, schema)


def from_rows(rows: Sequence[Mapping[str, Any]], channels: Sequence[ChannelName]) -> list[Merge]:
    """Returns the merges of stored rows.

    Args:
        rows: of the table, or the same from a bundle.
        channels: all channels in their order, which the channels of each merge keep.
    """
    merges = []
    for name in dict.fromkeys(row["list_name"] for row in rows):
        own = [row for row in rows if row["list_name"] == name]
        weights = {
            Term(_signal(row, ""), _signal(row, "other_") if row["other_channel"] else None): float(row["weight"])
            for row in own
            if row["channel"] != INTERCEPT
        }
        (intercept,) = (float(row["weight"]) for row in own if row["channel"] == INTERCEPT)
        kept = tuple(one for one in channels if one in {term.signal.channel for term in weights})
        merges.append(Merge(name, kept, weights, intercept))
    return merges


def _signal(row: Mapping[str, Any], prefix: str) -> Signal:
    return Signal(ChannelName(row[f"{prefix}channel"]), row[f"{prefix}signal"])


def _row(name: str, signal: tuple[str, str], other: tuple[str, str] | None, weight: float, default: float) -> dict[str, Any]:
    other_channel, other_signal = other or (NONE, NONE)
    return {
        "list_name": name,
        "channel": str(signal[0]),
        "signal": signal[1],
        "other_channel": str(other_channel),
        "other_signal": other_signal,
        "weight": weight,
        "default_weight": default,
    }
