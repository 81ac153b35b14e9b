"""The root configuration: secrets are not shown in errors, keys may not contradict each other."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets_tests.worlds import CONFIG, merged


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
