"""The root configuration: secrets are not shown in errors, keys may not contradict each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError

SMALLEST: dict[str, Any] = {
    "calendar": {"start": "2026-01-01"},
    "tables": {name: {"uri": f"{name}.parquet"} for name in ("user", "item", "behavior")},
    "events": {"funnel": ["click", "buy"], "positive": ["buy"]},
    "features": {"fg": {"features": []}},
}


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
    with pytest.raises(ConfigError, match=rf"key platform\.{key}: .*got one that is not shown") as caught:
        parse_config({**SMALLEST, "platform": {key: value}})
    assert "token" not in str(caught.value)


def test_all_faults_come_at_once() -> None:
    raw = {**SMALLEST, "training": {"group_visits": True, "epochs": 0}, "modle": {}}
    with pytest.raises(ConfigError, match="3 faults:"):
        parse_config(raw)


@pytest.mark.parametrize("form", ["parquet", "json"])
def test_a_decimal_comma_of_users_is_for_csv_alone(form: str) -> None:
    raw = copy.deepcopy(SMALLEST)
    raw["tables"]["user"] = {"uri": "users", "format": form, "decimal_mark": ","}
    with pytest.raises(ConfigError, match=rf"tables\.user.*decimal_mark is for csv: write the numbers of this {form} table"):
        parse_config(raw)
    raw["tables"]["user"]["format"] = "csv"
    raw["tables"]["behavior"] |= {"format": form, "decimal_mark": ","}
    tables = parse_config(raw).tables
    assert [tables.user.decimal_mark, tables.behavior.decimal_mark] == [",", ","]


@pytest.mark.parametrize("value", ["%d.%m", "%d.%b.%m.%Y", 3])
def test_time_format_that_reads_no_date_is_refused(value: object) -> None:
    raw = copy.deepcopy(SMALLEST)
    raw["tables"]["behavior"]["time_format"] = value
    with pytest.raises(ConfigError, match=r"tables\.behavior\.time_format"):
        parse_config(raw)
