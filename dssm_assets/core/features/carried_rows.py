"""Which row of an embedding table today stood for the same values in the table of an earlier day.

Belongs here: the correspondence, by value. Does not belong here: the weights that are carried over (`training/warm_start`).

    counted vocabulary    a value's row is wherever the earlier vocabulary had the value; out-of-vocabulary stays itself
    bins of a number      a bin's row is that of the earlier bin in which its middle lay
    any other rule        row by row if the rule is the same, else none

Example: today's vocabulary c, a, d at rows 2, 3, 4, the earlier one's a, b, c there: 2 -> 4, 3 -> 2, and d is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import FEATURE, FEATURE_INFO
from dssm_assets.core.features.bucketizer import OUT_OF_VOCABULARY, Bucketizer
from dssm_assets.core.features.feature_info import FeatureInfo
from dssm_assets.core.features.vocabulary import FeatureCounts

_RULE: Final = (
    "boundary",
    "vocab_list",
    "vocab_dict",
    "num_buckets",
    "hash_bucket_size",
    "default_bucketize_value",
    "default_value",
    "hash_function",
    "num_embeddings",
)
"""Keys that decide which row a value gets, where no counts do."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CarriedRows:
    """Rows of one embedding, of today and of the earlier day, one beside the other; row 0 (missing) is not among them."""

    today: Rows
    earlier: Rows


class FeatureRows:
    """The feature configuration of a day as rules from values to rows."""

    def __init__(self, feature_config: pa.Table, counts: pa.Table) -> None:
        """Reads the rules.

        Args:
            feature_config: of the day.
            counts: that it was decided from.

        Raises:
            SchemaError: the counts are not those of the configuration.
        """
        self.bucketizer = Bucketizer(feature_config, counts)
        self.counts = FeatureCounts(counts)
        kept = feature_config.filter(feature_config.column(FEATURE_INFO).is_valid())
        self.of_embedding: dict[str, tuple[str, FeatureInfo]] = {}
        for name, text in zip(kept.column(FEATURE).to_pylist(), kept.column(FEATURE_INFO).to_pylist(), strict=True):
            info = FeatureInfo.from_json(text)
            self.of_embedding.setdefault(info.embedding_name, (name, info))


def carried_rows(today: FeatureRows, earlier: FeatureRows) -> dict[str, CarriedRows]:
    """Returns the rows that stand for the same values on both days, by embedding; embeddings of one day alone are left out."""
    return {
        embedding: _carried(today, earlier, embedding) for embedding in today.of_embedding if embedding in earlier.of_embedding
    }


def _carried(today: FeatureRows, earlier: FeatureRows, embedding: str) -> CarriedRows:
    name, info = today.of_embedding[embedding]
    name_before, before = earlier.of_embedding[embedding]
    if info.vocab_size is not None and before.vocab_size is not None and info.hash_function == before.hash_function:
        hashes = today.counts.vocabulary(info.counted_features or [], info.min_count or 1)
        rows, rows_before = _of_values(today, name, hashes), _of_values(earlier, name_before, hashes)
        same = rows_before > OUT_OF_VOCABULARY
        outside = np.array([OUT_OF_VOCABULARY], np.int64)
        return CarriedRows(np.concatenate([outside, rows[same]]), np.concatenate([outside, rows_before[same]]))
    if info.boundary and before.boundary:
        middles = _middles(np.asarray(info.boundary, np.float32))
        return CarriedRows(_of_values(today, name, middles), _of_values(earlier, name_before, middles))
    same_rule = all(getattr(info, key) == getattr(before, key) for key in _RULE)
    rows = np.arange(1, info.num_embeddings if same_rule and info.vocab_size == before.vocab_size else 1, dtype=np.int64)
    return CarriedRows(rows, rows)


def _of_values(rows: FeatureRows, feature: str, values: npt.NDArray[Any]) -> Rows:
    return np.asarray(rows.bucketizer.bucketize(feature, pa.array(values)).to_numpy(), np.int64)


def _middles(boundaries: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns a number inside of every bin [a, b), also of the first and the last, which have one end.

    Where no float32 lies between a and b, the middle may round to b, outside of the bin: a is all that is in it.
    """
    below = np.nextafter(boundaries[:1], np.float32(-np.inf))
    between = ((boundaries[:-1].astype(np.float64) + boundaries[1:]) / 2).astype(np.float32)
    inside = np.where(between < boundaries[1:], between, boundaries[:-1])
    return np.concatenate([below, inside, boundaries[-1:]]).astype(np.float32)
