"""Whether the columns that feature definitions read exist, told before anything is computed.

Belongs here: comparing definitions with columns. Does not belong here: which columns there will be (`steps/validation.py`)
and whether a column's type suits a feature, which the generator says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from dssm_assets.core.errors import Fault
from dssm_assets.core.features.spec import FgSpec

SEQUENCE: Final = "sequence"
_TABLES: Final = {
    "user": "user_all_feature",
    "item": "item_all_feature",
    "context": "sample",
    SEQUENCE: "user_history",
}
_REMEDIES: Final = {
    "user": "add it to the user table, or correct the expression",
    "item": "add it to the item table, or correct the expression",
    "context": "add it to tables.behavior.context_columns, or correct the expression",
    SEQUENCE: "add it to raw_features.history_columns, or correct the expression",
}


def missing_inputs(spec: FgSpec, columns: Mapping[str, Collection[str]]) -> list[Fault]:
    """Returns one fault per feature and column that it reads and its table will not have.

    Args:
        spec: the feature definitions.
        columns: side (user, item, context, sequence) -> the columns of the table that its features read; a side that is
            lacking is not checked.
    """
    faults = []
    for feature in (*spec.features, *spec.sequence_features):
        side = SEQUENCE if feature.sequence is not None else feature.side.value
        if side not in columns:
            continue
        for name in feature.inputs:
            if name not in columns[side]:
                there = ", ".join(sorted(columns[side]))
                shown = there if len(there) <= 400 else f"{there[:400]} ..."
                where = f"fg.json, feature {feature.name}"
                faults.append(Fault(where, f"a column of {_TABLES[side]}: {shown}", repr(name), _REMEDIES[side]))
    return faults
