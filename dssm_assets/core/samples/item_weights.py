"""How often an item was taken, and with what weight it is drawn as a negative for it.

Belongs here: the law of the weights, and carrying it with a table. Does not belong here: counts of positives and the corpus
(`negative_items`), the draw (`core/models/samplers`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.config import NegativeItems

_LAW: Final = b"negative_items"
"""Key of the law in the metadata of items.arrow."""


def weights_of(counts: npt.NDArray[Any], law: NegativeItems) -> npt.NDArray[np.float64]:
    """Returns (count + smoothing) ** alpha.

    Example: counts 0 and 3, smoothing 1, alpha 0.5: weights 1 and 2.
    """
    return np.asarray(np.power(counts + law.smoothing, law.alpha))


def with_law(schema: pa.Schema, law: NegativeItems) -> pa.Schema:
    """Returns the schema of a table of weights with the law that they follow, so that others can be made by it."""
    return schema.with_metadata({_LAW: law.model_dump_json().encode()})


def law_of(schema: pa.Schema) -> NegativeItems | None:
    """Returns the law that the weights of a table follow; None where the table does not tell."""
    told = (schema.metadata or {}).get(_LAW)
    return None if told is None else NegativeItems.model_validate_json(told)
