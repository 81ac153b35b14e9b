"""A naive pandas pipeline over the same tables: join each day, encode every sample, cut numbers, write.

The samples of each day are merged with users and items as of the previous day, and every feature is encoded for every
sample: numbers unchanged, texts by a hash of the column, combinations by joining texts, bags by exploding. Then the days are
concatenated, numbers are cut at quantiles of the window, counted categories are factorized, and everything is written.
Bucket 0 is missing, as in our path. It uses nothing of ours except, on request, the hash function.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets_tests.benchmarks.process_cost import measured

ENCODE = "encode per sample"
QUANTILES = "quantiles"
CUT = "cut, factorize"
NUM_BINS = 10
SEPARATOR = "\x1d"
Frame = Any


def run(days: list[dict[str, str]], features: list[dict[str, Any]], output: str, own_hash: bool = False) -> dict[str, Any]:
    """Returns the cost of each part and the number of samples that it wrote to the file `output`.

    Args:
        days: files of each day: sample, user, item.
        features: the definitions of fg.json.
        output: the parquet file to write.
        own_hash: hash with the function of the reference instead of that of pandas, so that buckets equal ours.
    """
    parts = []
    joining, encoding = [], []
    tables = _Tables()
    for files in days:
        with measured("read, join") as cost:
            frame = tables.join_day(files)
        joining.append(cost)
        with measured(ENCODE) as cost:
            parts.append(_encoded(frame, features, own_hash))
        encoding.append(cost)
        del frame
    with measured(QUANTILES) as quantiles:
        window: Frame = pd.concat(parts, ignore_index=True)
        parts.clear()
        boundaries = {name: _boundaries(window[name]) for name in _numbers(features)}
    with measured(CUT) as cutting:
        _bucketize(window, features, boundaries)
    with measured("write") as writing:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        window.to_parquet(output, index=False)
    costs = [_sum(joining), _sum(encoding), quantiles, cutting, writing]
    for cost in costs:
        cost.rows = len(window)
    return {"costs": [asdict(cost) for cost in costs], "samples": len(window)}


class _Tables:
    """Reads the tables of a day; a file that several days share is read once."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, Frame]] = {}

    def join_day(self, files: dict[str, str]) -> Frame:
        """Returns the samples of a day with the columns of their users and items."""
        sample = pd.read_parquet(files["sample"])
        users, items = self._read("user", files), self._read("item", files)
        return sample.merge(users, on="user_id", how="left").merge(items, on="item_id", how="left")

    def _read(self, side: str, files: dict[str, str]) -> Frame:
        if side not in self._held or self._held[side][0] != files[side]:
            self._held[side] = (files[side], pd.read_parquet(files[side]).drop(columns="feature_date"))
        return self._held[side][1]


def _encoded(frame: Frame, features: list[dict[str, Any]], own_hash: bool) -> Frame:
    columns: dict[str, Any] = {name: frame[name] for name in ("user_id", "item_id", "event_time_ms")}
    for feature in features:
        name, kind, expression = feature["feature_name"], feature["feature_type"], feature["expression"]
        size = feature.get("hash_bucket_size")
        if kind == "raw_feature":
            columns[name] = frame[_column(expression)].astype("float32")
        elif kind == "combo_feature":
            first, second = (frame[_column(text)].astype("str") for text in expression)
            columns[name] = _buckets(first + "_" + second, size, own_hash)
        elif feature.get("value_dim") == 1:
            columns[name] = _buckets(frame[_column(expression)].astype("str"), size, own_hash)
        else:
            columns[name] = _bags(frame[_column(expression)], size, own_hash)
    return pd.DataFrame(columns)


def _column(expression: str) -> str:
    return expression.split(":")[1]


def _buckets(texts: Any, size: int | None, own_hash: bool) -> Any:
    """Returns 1 + hash modulo the size as int32, or the hash without a size; 0 for a missing text."""
    hashes = hash_values(pa.array(texts)) if own_hash else pd.util.hash_pandas_object(texts, index=False).to_numpy()
    known = texts.notna().to_numpy()
    if size is None:
        return np.where(known, hashes, np.uint64(0))
    return np.where(known, hashes % np.uint64(size) + np.uint64(1), np.uint64(0)).astype(np.int32)


def _bags(column: Any, size: int | None, own_hash: bool) -> Any:
    """Returns lists of buckets, an empty one for a row without values."""
    if column.dtype != object:
        column = column.str.split(SEPARATOR)
    single = column.explode()
    texts = single[single.notna() & (single != "")].astype("str")
    lengths = np.bincount(texts.index, minlength=len(column))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(_buckets(texts, size, own_hash)))
    return pd.Series(pd.arrays.ArrowExtensionArray(lists))


def _numbers(features: list[dict[str, Any]]) -> list[str]:
    return [feature["feature_name"] for feature in features if feature["feature_type"] == "raw_feature"]


def _boundaries(column: Any) -> Any:
    return np.unique(column.quantile(np.arange(1, NUM_BINS) / NUM_BINS))


def _bucketize(window: Frame, features: list[dict[str, Any]], boundaries: dict[str, Any]) -> None:
    for feature in features:
        name = feature["feature_name"]
        if name in boundaries:
            codes = pd.cut(window[name], [-np.inf, *boundaries[name], np.inf], right=False, labels=False)
            window[name] = (codes + 1).fillna(0).astype("int32")
        elif feature.get("hash_bucket_size") is None:
            codes, _ = pd.factorize(window[name].where(window[name] != 0))
            window[name] = (codes + 1).astype("int32")


def _sum(costs: list[Any]) -> Any:
    total = costs[0]
    for cost in costs[1:]:
        total.cpu_s += cost.cpu_s
        total.wall_s += cost.wall_s
        total.peak_mib = max(total.peak_mib, cost.peak_mib)
    return total
