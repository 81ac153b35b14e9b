"""Rows per second of each feature type: one feature over one batch through the generator.

Texts are drawn from DISTINCT different ones, because every rule runs once per distinct text; numbers differ in every row.

Belongs here: an example of each feature type and its speed. Does not belong here: what an operator computes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE

DISTINCT: Final = 100_000
_REPEATS: Final = 3
_HASHED: Final = {"hash_bucket_size": 100_000}
_BOUNDED: Final = {"boundaries": [0.1, 0.2, 0.5, 1, 2, 5]}

EXAMPLES: Final[Mapping[str, Mapping[str, Any]]] = {
    "id_feature": {"expression": "user:word", "value_dim": 1, **_HASHED},
    "raw_feature": {"expression": "user:number", **_BOUNDED},
    "combo_feature": {"expression": ["user:word", "user:page"], "value_dim": 1, **_HASHED},
    "lookup_feature": {"map": "user:key_values", "key": "user:key", **_BOUNDED},
    "match_feature": {"nested_map": "user:nested", "pkey": "user:page", "skey": "user:key", **_BOUNDED},
    "bool_mask_feature": {"expression": ["user:bag", "user:mask"], **_HASHED},
    "overlap_feature": {"query": "user:bag", "title": "user:title", "method": "query_common_ratio", **_BOUNDED},
    "kv_dot_product": {"query": "user:key_values", "document": "user:other_key_values", **_BOUNDED},
    "expr_feature": {
        "expression": "a > 1 ? log10(number) : a * 2",
        "variables": ["user:number", "user:a"],
        **_BOUNDED,
    },
    "tokenize_feature": {"expression": "user:sentence", "vocab_file": "tokenizer.json"},
    "sequence_id_feature": {"expression": "user:word_sequence", "sequence_length": 10, **_HASHED},
    "sequence_raw_feature": {"expression": "user:number_sequence", "sequence_length": 10, **_BOUNDED},
    SEQUENCE_FEATURE: {
        "sequence_name": "clicks",
        "sequence_length": 10,
        "sequence_delim": ";",
        "features": [
            {"feature_name": "word", "feature_type": "id_feature", "expression": "item:word_sequence", **_HASHED},
            {"feature_name": "number", "feature_type": "raw_feature", "expression": "item:number_sequence", **_BOUNDED},
        ],
    },
}
"""feature_type -> an example definition."""


def run(rows: int, seed: int = 17) -> list[dict[str, Any]]:
    """Returns for each feature type the rows per CPU second of `encode` and `bucketize`, its batch size and its inputs."""
    columns = _columns(np.random.default_rng(seed), rows)
    speeds = []
    for kind in [*OPERATORS, SEQUENCE_FEATURE]:
        generator = FeatureGenerator.from_fg_json({"features": [definition_of(kind)]}, read_file=_tokenizer)
        features = (*generator.spec.features, *generator.spec.sequence_features)
        needed = sorted({name for feature in features for name in feature.inputs})
        batch = pa.table({name: columns[name] for name in needed})
        speeds.append(
            {
                "feature_type": kind,
                "rows": batch.num_rows,
                "inputs": ", ".join(
                    f"{name} ({columns[name].type}, {distinct_values(columns[name]):,} distinct)" for name in needed
                ),
                "encode": _rows_per_s(generator.encode, batch),
                "bucketize": _rows_per_s(generator.bucketize, batch),
            }
        )
    return speeds


def definition_of(kind: str) -> dict[str, Any]:
    """Returns the example of a feature type as an entry of fg.json."""
    named = {} if kind == SEQUENCE_FEATURE else {"feature_name": "measured"}
    return {**named, "feature_type": kind, **EXAMPLES[kind]}


def distinct_values(column: pa.Array) -> int:
    """Returns the number of distinct values of a column, of lists those of their elements."""
    return int(pc.count_distinct(column.flatten() if isinstance(column, pa.ListArray) else column).as_py())


def _rows_per_s(work: Callable[[pa.Table], pa.Table], batch: pa.Table) -> float:
    spent: list[float] = []
    for _ in range(_REPEATS):
        start = time.process_time()
        work(batch)
        spent.append(time.process_time() - start)
    return float(batch.num_rows / max(statistics.median(spent), 1e-9))


def _tokenizer(_: str) -> bytes:
    """Returns a byte-pair tokenizer of the words below: "word_" is one token, and so is every digit."""
    tokens = [*"word_0123456789", "wo", "rd", "word", "word_"]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    merges = [["w", "o"], ["r", "d"], ["wo", "rd"], ["word", "_"]]
    model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return json.dumps({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}).encode()


def _columns(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    """Returns every input that an example reads."""
    words = [f"word_{number}" for number in range(1_000)]

    def bags(separator: str, most: int, spell: Callable[[str], str] = str) -> pa.Array:
        lengths = rng.integers(1, most + 1, min(rows, DISTINCT))
        picked = iter(rng.integers(0, len(words), int(lengths.sum())).tolist())
        texts = [separator.join(spell(words[next(picked)]) for _ in range(length)) for length in lengths.tolist()]
        return pa.array(texts).take(pa.array(rng.integers(0, len(texts), rows)))

    def weighted(word: str) -> str:
        return f"{word}:{len(word) / 8}"

    bag = bags("\x1d", 5)
    elements = rng.integers(0, 15, rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(elements)]), pa.int32())
    word_of = pa.array(words).take(pa.array(rng.integers(0, len(words), int(elements.sum()))))
    ids = pa.array([f"id_{number}" for number in range(DISTINCT)])
    return {
        "word": ids.take(pa.array(rng.integers(0, DISTINCT, rows))),
        "page": pa.array([f"page_{number}" for number in range(8)]).take(pa.array(rng.integers(0, 8, rows))),
        "key": pa.array(words).take(pa.array(rng.integers(0, len(words), rows))),
        "number": pa.array(rng.lognormal(0, 1, rows)),
        "a": pa.array(rng.lognormal(0, 1, rows)),
        "bag": bag,
        "mask": _masks(bag),
        "title": bags("\x1d", 10),
        "sentence": bags(" ", 8),
        "key_values": bags("\x1d", 10, weighted),
        "other_key_values": bags("\x1d", 10, weighted),
        "nested": bags("|", 5, lambda word: f"page_{len(word) % 8}^{weighted(word)},word_1:2"),
        "word_sequence": pa.ListArray.from_arrays(offsets, word_of),
        "number_sequence": pa.ListArray.from_arrays(offsets, pa.array(rng.lognormal(0, 1, len(word_of)))),
    }


def _masks(bag: pa.Array) -> pa.Array:
    """Returns a mask as long as each bag: every element but the last."""
    distinct = bag.dictionary_encode()
    masks = ["\x1d".join(["true"] * text.count("\x1d") + ["false"]) for text in distinct.dictionary.to_pylist()]
    return pa.array(masks).take(distinct.indices)
