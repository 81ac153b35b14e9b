"""The positive samples: the rows that the towers are trained on.

Belongs here: the choice of those rows. Does not belong here: the label itself (`sample.py`) and negatives, which
are drawn from the corpus (`negative_items.py`), not taken from rows with label 0.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.specs import require_columns


def positive_sample(sample_fg: pa.Table) -> pa.Table:
    """Returns the rows of sample_fg whose label is 1, in their order, with all columns.

    Works on a whole day or on any part of it.

    Raises:
        SchemaError: there is no label column, or a label is neither 0 nor 1.
    """
    require_columns("table sample_fg", sample_fg.column_names, [col.LABEL])
    label = sample_fg.column(col.LABEL)
    odd = [value for value in pc.unique(label).to_pylist() if value not in {0, 1}]
    if odd:
        came = ", ".join(sorted(str(value) for value in odd))
        raise SchemaError(Fault(f"table sample_fg, column {col.LABEL}", "0 or 1", came, "build the table with sample.sample"))
    return sample_fg.filter(pc.equal(label, 1))
