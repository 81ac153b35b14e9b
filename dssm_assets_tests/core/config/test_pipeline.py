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


@pytest.mark.parametrize("value", ["htps://hooks.example/token", ["https://token"], "https://hooks.example/a token"])
def test_webhook_address_is_not_shown(value: object) -> None:
    raw = {**SMALLEST, "platform": {"webhook_url": value}}
    with pytest.raises(ConfigError, match=r"key platform\.webhook_url: .*got one that is not shown") as caught:
        parse_config(raw)
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
