"""Parity: sampled rows are spread over the table, and a skew between batch and request is reported with its feature."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.parity import ParityReport, merge_reports, replay_rows

ID = {"feature_type": "id_feature", "value_dim": 1}
GENERATOR = FeatureGenerator.from_fg_json({"features": [
    {**ID, "feature_name": "x", "expression": "item:x"},
    {**ID, "feature_name": "t", "expression": "item:t"},
    {**ID, "feature_name": "tags", "expression": "item:tags", "value_dim": 0},
    {"feature_type": "raw_feature", "feature_name": "n", "expression": "item:n"},
]})  # fmt: skip


def test_float32_inputs_replay_without_difference() -> None:
    # 60734968 is a float32, and so is what the shorter 60734970 reads as: the same number.
    numbers = [0.1, 60734968.0, 1e20, None, float("nan")]
    table = pa.table({
        "x": pa.array(numbers, pa.float32()),
        "t": pa.nulls(5, pa.string()),
        "tags": pa.array([numbers, None, [], [0.7], [60734968.0]], pa.list_(pa.float32())),
        "n": pa.array(numbers, pa.float32()),
    })  # fmt: skip
    report = replay_rows(GENERATOR, table, GENERATOR.encode(table, "item"), "item", [0, 1, 2, 3, 4])
    assert (report.example, report.row_count) == ("", 5)


def test_whole_sequences_are_replayed_whole() -> None:
    sequence = {"feature_type": "sequence_feature", "sequence_name": "s", "sequence_length": 1, "features": [
        {**ID, "feature_name": "i", "expression": "user:i"},
    ]}  # fmt: skip
    generator, table = FeatureGenerator.from_fg_json({"features": [sequence]}), pa.table({"i": [["a", "b"], [None, "c"]]})
    encoded = generator.encode(table, "sequence", is_whole=True)
    assert encoded.column("s__i").to_pylist()[0] == generator.encode_one({"i": ["a", "b"]}, "sequence", is_whole=True)["s__i"]
    assert replay_rows(generator, table, encoded, "sequence", [0, 1], is_whole=True).is_passed
    assert replay_rows(generator, table, encoded, "sequence", [0, 1]).differing == {"s__i": 2}


def test_merged_reports_add_differences_and_keep_the_first_example() -> None:
    whole = merge_reports([ParityReport(2), ParityReport(2, {"a": 1}, "first"), ParityReport(3, {"a": 2, "b": 1}, "second")])
    assert (whole.row_count, whole.differing, whole.example) == (7, {"a": 3, "b": 1}, "first")
