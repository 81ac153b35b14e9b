"""Sections of the configuration: bounds and defaults; what would go wrong later is refused when it is read, and no secret is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import annotated_types
import pytest
from pydantic.fields import FieldInfo

from dssm_assets.core.config.channels import ChannelName, Channels
from dssm_assets.core.config.evaluation import Evaluation, Segment, SegmentKind
from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.config.section import Section
from dssm_assets.core.errors import ConfigError
from dssm_assets_tests.worlds import CONFIG, merged

ANY_NUMBER = {"Segment.edges"}
"""Cut points of a user column, which may be anywhere."""


def sections(section: type[Section]) -> Iterator[type[Section]]:
    yield section
    for key in section.model_fields.values():
        for kind in leaves(key.annotation):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from sections(kind)


def leaves(annotation: Any) -> Iterator[Any]:
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for each in arguments if get_origin(annotation) is not Annotated else arguments[:1]:
        yield from leaves(each)


def numbers(annotation: Any, limits: list[Any]) -> Iterator[list[Any]]:
    if annotation in (int, float):
        yield limits
    elif get_origin(annotation) is Annotated:
        inner, *keys = get_args(annotation)
        yield from numbers(inner, [limit for key in keys if isinstance(key, FieldInfo) for limit in key.metadata])
    elif get_origin(annotation) in (list, dict):
        for each in get_args(annotation):
            yield from numbers(each, [])
    else:
        for each in get_args(annotation):
            yield from numbers(each, limits)


def test_every_number_has_a_lower_and_an_upper_bound() -> None:
    lower, upper = (annotated_types.Ge, annotated_types.Gt), (annotated_types.Le, annotated_types.Lt)
    unbounded = {
        f"{section.__name__}.{name}"
        for section in sections(PipelineConfig)
        for name, key in section.model_fields.items()
        for limits in numbers(key.annotation, list(key.metadata))
        if not (any(isinstance(each, lower) for each in limits) and any(isinstance(each, upper) for each in limits))
    }
    assert unbounded == ANY_NUMBER


REFUSED = [
    ({"calendar": {"timezone": "+08:00"}}, "timezone must be the name of a time zone"),
    ({"calendar": {"timezone": "Europe"}}, "timezone must be the name of a time zone"),
    ({"calendar": {"timezone": "posixrules"}}, "timezone must be the name of a time zone"),
    ({"calendar": {"end": "2023-12-31"}}, "end 2023-12-31 is before start 2024-01-01"),
    ({"tables": {"behavior": {"layout": "snapshot"}}}, "the log has days: its layout is time_column or ds_folders"),
    ({"tables": {"behavior": {"value_columns": ["price", "price"]}}}, "value_columns: .* each name .* repeated: price"),
    ({"tables": {"behavior": {"context_columns": ["page", "page"]}}}, "context_columns: .* each name .* repeated: page"),
    ({"tables": {"behavior": {"context_columns": ["page", "price"]}}}, "price is a value and a context column"),
    ({"tables": {"behavior": {"context_columns": ["user_id"]}}}, "context_columns: user_id has a meaning of its own"),
    ({"tables": {"behavior": {"value_columns": ["label"]}}}, "value_columns: label has a meaning of its own"),
    ({"tables": {"behavior": {"constant_event": "sale", "columns": {"event": "kind"}}}}, "also a mapping of event to 'kind'"),
    ({"tables": {"behavior": {"constant_event": "sale"}}}, "expected an event of the funnel .* got 'sale'"),
    ({"tables": {"behavior": {"time_format": "%d.%m"}}}, r"tables\.behavior\.time_format"),
    ({"tables": {"behavior": {"time_format": "%d.%b.%m.%Y"}}}, r"tables\.behavior\.time_format"),
    ({"tables": {"behavior": {"time_format": 3}}}, r"tables\.behavior\.time_format"),
    ({"tables": {"user": {"keep": ["city", "city"]}}}, "repeated: city"),
    ({"events": {"positive": ["buy", "buy"]}}, "repeated: buy"),
    ({"raw_features": {"preference_columns": ["category", "category"]}}, "repeated: category"),
    ({"raw_features": {"history_columns": [""]}}, "a name must not be empty"),
    ({"evaluation": {"k": [10**12]}}, "less than or equal to 10000"),
    ({"evaluation": {"k": []}}, "at least 1 item"),
    ({"negative_items": {"alpha": float("inf")}}, "finite number"),
    ({"training": {"weight_decay": float("nan")}}, "finite number"),
    ({"duckdb": {"memory": "1KB"}}, "memory must be from 64MB to 64TB"),
    ({"duckdb": {"memory": "much"}}, "key duckdb.memory: expected a valid value, got 'much': String should match pattern"),
    ({"duckdb": {"memory": "63MB"}}, "memory must be from 64MB to 64TB"),
    ({"duckdb": {"memory": "65TB"}}, "memory must be from 64MB to 64TB"),
    ({"model": {"hidden_units": [10**9]}}, "less than or equal to 65536"),
    ({"model": {"hidden_units": [0]}}, "greater than or equal to 1"),
    ({"model": {"event_weights": {"view": 2}}}, "model.event_weights: expected events of events.positive: buy, got view"),
    ({"model": {"event_weights": {"buy": 0}}}, "greater than 0"),
    ({"model": {"prior": True}}, "key model.prior: expected validation days"),
    ({"training": {"validation_days": 6}}, "training.validation_days: expected fewer days than window.days, 6"),
    ({"model": {"in_batch": False, "num_sample": 0}}, "key model: expected negatives"),
    ({"model": {"frozen_embedding": "item"}}, "model.frozen_embedding: expected training.svd_init"),
    ({"model": {"sampler": "hard"}}, "events.exposure: expected an event: the sampler is hard"),
    ({"statistics": {"embedding_dim": {"item": 0}}}, "greater than or equal to 1"),
    ({"serving": {"variants": [{"name": "a", "share": 0.6}, {"name": "b", "share": 0.5}]}}, "sum to at most 1, got 1.1"),
    ({"serving": {"variants": [{"name": "a", "share": 0.6}, {"name": "a", "share": 0.4}]}}, "distinct, repeated: a"),
    (
        {"serving": {"shown": {}}, "evaluation": {"shown": {"events": ["wish"]}}},
        "expected events of events.funnel: .* got wish",
    ),
    ({"evaluation": {"shown": {"events": ["buy"]}}}, "evaluation.shown: expected a log of what was shown"),
    ({"evaluation": {"k": [10, 5]}}, "numbers must be ascending and distinct"),
    *(
        ({"evaluation": {"segments": [segment]}}, said)
        for segment, said in [
            ({"name": "City", "by": "city"}, "should match pattern"),
            ({"name": "", "by": "city"}, "should match pattern"),
            ({"name": "x", "by": ""}, "by needs a value"),
            ({"name": "x", "by": "user:"}, "by needs a value"),
            ({"name": "x", "by": "tenure", "edges": [1]}, "tenure is not one"),
            ({"name": "x", "by": "age", "edges": []}, "at least 1 item"),
            ({"name": "x", "by": "age", "edges": [3, 3]}, "ascending and distinct"),
            ({"name": "x", "by": "age", "edges": [4, 3]}, "ascending and distinct"),
            ({"name": "x", "by": "age", "edges": [float("nan")]}, "finite number"),
            ({"name": "x", "by": "age", "edges": [float("inf")]}, "finite number"),
        ]
    ),
    ({"evaluation": {"segments": [{"name": name, "by": "city"} for name in "abcba"]}}, "must be distinct, repeated: a, b"),
    ({"evaluation": {"segments": [{"name": name, "by": "city"} for name in "abcdefghi"]}}, "at most 8"),
    ({"gate": {"baselines": ["model"]}}, "key gate.*must be of popularity, .*, got model"),
    ({"gate": {"scopes": []}}, "key gate.*at least 1 item"),
    ({"gate": {"scopes": ["all", "all"]}}, "key gate.*must be distinct, got all, all"),
    ({"gate": {"scopes": ["cold"]}}, "key gate.*cannot include cold"),
    ({"gate": {"min_hit_rate": 1}}, "key gate.*unknown key 'min_hit_rate'"),
    ({"channels": {"sources": [{"name": "vectors"}, {"name": "vectors"}]}}, "repeated: vectors"),
    ({"channels": {"sources": [{"name": "own_history"}]}}, "must contain vectors"),
    ({"channels": {"sources": [{"name": "vectors", "quota": 0}]}}, "greater than or equal to 1"),
    ({"channels": {"sources": []}}, "at least 1 item"),
    ({"platform": {"trigger": "often"}}, "key platform.trigger"),
    ({"platform": {"schedule_at": "24:00"}}, "key platform.schedule_at"),
    ({"platform": {"schedule_at": "3:00"}}, "key platform.schedule_at"),
    ({"platform": {"owners": []}}, "key platform.owners"),
    ({"platform": {"freshness_hours": 0}}, "key platform.freshness_hours"),
    ({"platform": {"webhook_url": "ftp://host/x"}}, "key platform.webhook_url"),
    ({"platform": {"landed_marker": ""}}, "key platform.landed_marker"),
]


@pytest.mark.parametrize(("changes", "said"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
def test_values_that_would_fail_later_are_refused_when_read(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config(merged(CONFIG, changes))


@pytest.mark.parametrize("memory", ["64MB", "1.5 GiB", "64TB"])
def test_memory_within_its_bounds_is_accepted(memory: str) -> None:
    assert parse_config(merged(CONFIG, {"duckdb": {"memory": memory}})).duckdb.memory == memory


def test_what_sections_demand_of_each_other_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(merged(CONFIG, {"model": {"prior": True, "frozen_embedding": "item"}}))
    assert [fault.where for fault in caught.value.faults] == [
        "configuration, key model.frozen_embedding",
        "configuration, key model.prior",
    ]


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


def test_all_channels_propose_by_default_and_own_history_twice_as_many() -> None:
    assert Channels(depth=40).depths == {
        ChannelName.VECTORS: 40,
        ChannelName.OWN_HISTORY: 80,
        ChannelName.ITEM_TO_ITEM: 40,
        ChannelName.RECENT_POPULARITY: 40,
    }


def test_a_quota_replaces_the_depth_and_the_order_is_kept() -> None:
    sources: Any = [{"name": "own_history", "quota": 7}, {"name": "vectors"}]
    assert list(Channels(sources=sources).depths.items()) == [(ChannelName.OWN_HISTORY, 7), (ChannelName.VECTORS, 500)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("webhook_url", "htps://hooks.example/token"),
        ("webhook_url", ["https://token"]),
        ("webhook_url", "https://hooks.example/a token"),
        ("mlflow_uri", "http://me:token@mlflow.example"),
        ("mlflow_uri", "postgresql://me:token@db/mlflow"),
    ],
)
def test_address_is_not_shown(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"key platform\.{key}: .*got a value that may be secret") as caught:
        parse_config(merged(CONFIG, {"platform": {key: value}}))
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_decimal_comma_of_users_is_for_csv_alone(form: str) -> None:
    users = {"tables": {"user": {"format": form, "decimal_mark": ","}}}
    with pytest.raises(ConfigError, match=rf"tables\.user.*decimal_mark is for csv: write the numbers of this {form} table"):
        parse_config(merged(CONFIG, users))
    allowed = {"user": {"format": "csv"}, "behavior": {"format": form, "decimal_mark": ","}}
    tables = parse_config(merged(CONFIG, merged(users, {"tables": allowed}))).tables
    assert [tables.user.decimal_mark, tables.behavior.decimal_mark] == [",", ","]
