"""The section `evaluation`: what it accepts, what it says about what it does not."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.evaluation import Evaluation, Segment, SegmentKind
from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets_tests.worlds import CONFIG, merged


def test_without_a_word_users_are_cut_by_activity() -> None:
    (segment,) = Evaluation().segments
    assert (segment.name, segment.kind, segment.edges) == ("activity", SegmentKind.ACTIVITY, None)


@pytest.mark.parametrize(
    ("by", "kind", "column"),
    [
        ("activity", SegmentKind.ACTIVITY, "activity"),
        ("tenure", SegmentKind.TENURE, "tenure"),
        ("item_popularity", SegmentKind.ITEM_POPULARITY, "item_popularity"),
        ("city", SegmentKind.USER_COLUMN, "city"),
        ("user:city", SegmentKind.USER_COLUMN, "city"),
        ("user:tenure", SegmentKind.USER_COLUMN, "tenure"),
        ("a column of user_table", SegmentKind.USER_COLUMN, "a column of user_table"),
    ],
)
def test_what_a_segment_cuts_by(by: str, kind: SegmentKind, column: str) -> None:
    segment = Segment(name="cut", by=by)
    assert (segment.kind, segment.user_column) == (kind, column)


def test_an_unknown_key_inside_an_entry_of_a_list_or_a_mapping_names_the_known_ones() -> None:
    segments = {"segments": [{"name": "city", "by": "city", "edge": [1]}]}
    with pytest.raises(ConfigError) as caught:
        parse_config(merged(CONFIG, {"evaluation": segments, "statistics": {"features": {"brand": {"mincount": 5}}}}))
    first, second = (str(fault) for fault in caught.value.faults)
    assert "key evaluation.segments.0.edge: expected one of: by, edges, name, got unknown key 'edge'" in first
    assert "key statistics.features.brand.mincount: expected one of: hash_bucket_size, " in second
