"""The configuration file: what is refused, what its placeholders become."""

import json

import pytest
import yaml

from dssm_assets.core.errors import ConfigError
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.worlds import CONFIG, FG, merged, write_config


def test_placeholders_are_filled_with_data_and_home_folders(tmp_path):
    tables = {"user": {"uri": "{home}/users.parquet"}, "item": {"uri": "s3://bucket/items"}}
    loaded = write_config(tmp_path, {"tables": tables})
    assert loaded.config.tables.user.uri == f"{tmp_path}/home/users.parquet"
    assert loaded.config.tables.item.uri == "s3://bucket/items"
    assert loaded.config.tables.behavior.uri == f"{tmp_path}/source/behavior.parquet"
    assert loaded.root == f"{tmp_path}/home/tables"
    assert (loaded.home, loaded.path) == (tmp_path / "home", tmp_path / "config.yaml")


def test_the_engine_gets_the_limits_of_the_configuration(tmp_path):
    engine = open_workspace(write_config(tmp_path, {})).engine
    assert (engine.memory, engine.threads, engine.scratch) == ("1GB", 1, tmp_path / "home" / "scratch")
    own = {"memory": "512MB", "threads": 3, "scratch": str(tmp_path / "disk")}
    engine = open_workspace(write_config(tmp_path, {"duckdb": own})).engine
    assert (engine.memory, engine.threads, engine.scratch) == ("512MB", 3, tmp_path / "disk")
    with pytest.raises(
        ConfigError, match=r"key duckdb.memory: expected a valid value, got 'much': String should match pattern"
    ):
        write_config(tmp_path, {"duckdb": {"memory": "much"}})


def test_all_unknown_keys_and_bad_values_are_named(tmp_path):
    with pytest.raises(ConfigError, match="3 faults") as caught:
        write_config(tmp_path, {"modle": {}, "window": {"dayz": 3}, "training": {"epochs": 0}})
    message = str(caught.value)
    assert "configuration config.yaml, key modle: expected one of: " in message
    assert "unknown key 'dayz'" in message
    assert "one of: days, history_days" in message
    assert "key training.epochs: expected a valid value, got 0: Input should be greater than or equal to 1. To fix: " in message


def test_a_missing_file_names_the_variable_that_points_to_it(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: expected a YAML file, got no such file.*DSSM_CONFIG"):
        load_config(tmp_path / "none.yaml", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"calendar: [1, 2", "expected valid YAML"),
        (b"- a\n- b\n", "expected a mapping, got list"),
        (b"", "expected a mapping, got NoneType"),
        (b"a: 1\nb: 2\na: 3\n", r"the key 'a' is given twice in one mapping(.|\n)*line 3"),
        (b"b:\n  c: 1\n  c: 1\n", r"the key 'c' is given twice in one mapping(.|\n)*line 3"),
        (b"a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}\n", r"the key 'y' is given twice in one mapping(.|\n)*line 2, column 19"),
        (b"name: caf\xe9\n", r"config\.yaml: expected valid YAML in UTF-8"),
        (b"name: " + b"[" * 500, r"config\.yaml: expected valid YAML in UTF-8"),
        (b"a: " + b"{a: " * 3000, r"config\.yaml: expected valid YAML in UTF-8"),
        ("name: \ud800".encode("utf-8", "surrogatepass"), r"config\.yaml: expected valid YAML in UTF-8"),
        (b"calendar: {start: 2024-02-30}", r"'2024-02-30' is no timestamp: day is out of range(.|\n)*line 1, column 19"),
        (b"a: 2024-01-01 25:00:00", "is no timestamp: hour must be in"),
        (b"seed: " + b"9" * 4301, "is no int: Exceeds the limit"),
        (b"a: 1" + b":10" * 300 + b".5", "is no float: int too large"),
        *((f"a: !!{tag} x".encode(), f"'x' is no {tag}") for tag in ("int", "float", "bool", "timestamp")),
        (b"a: !!set x", "expected valid YAML"),
    ],
)
def test_files_that_are_not_yaml_mappings_are_refused(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path, tmp_path)


def test_feature_definitions_are_read_relative_to_the_configuration(tmp_path):
    config = merged(CONFIG, {})
    config["features"] = {"fg_path": "features/fg.json"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match=r"key features.fg_path: expected a JSON file at fg.json"):
        load_config(tmp_path / "config.yaml", tmp_path / "home")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "fg.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"fg.json: expected a mapping, got list"):
        load_config(tmp_path / "config.yaml", tmp_path / "home")
    (tmp_path / "features" / "fg.json").write_text('{"features": [], "features": []}')
    with pytest.raises(ConfigError, match=r"the key 'features' is given twice in one mapping"):
        load_config(tmp_path / "config.yaml", tmp_path / "home")
    (tmp_path / "features" / "fg.json").write_text('{"features": ' * 100_000)
    with pytest.raises(ConfigError, match=r"features\.fg_path: expected a JSON file at fg\.json"):
        load_config(tmp_path / "config.yaml", tmp_path / "home")
    (tmp_path / "features" / "fg.json").write_text(json.dumps(FG))
    assert load_config(tmp_path / "config.yaml", tmp_path / "home").fg == FG


def test_a_file_outside_the_folder_must_be_allowed_by_name(tmp_path):
    """The content of a vocabulary is published with the bundle: fg.json alone must not be able to choose any file of the machine."""
    secret = tmp_path / "secret.txt"
    secret.write_text("red\nblue\n")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "link.txt").symlink_to(secret)
    (folder / "words.txt").write_text("red\nblue\n")
    loaded = write_config(folder, {})
    assert loaded.read_fg_file("words.txt") == b"red\nblue\n"
    for name in ("../secret.txt", str(secret), "link.txt"):
        with pytest.raises(PermissionError, match=r"features\.files_outside"):
            loaded.read_fg_file(name)
    allowed = write_config(folder, {"features": {"files_outside": ["../secret.txt"]}})
    assert allowed.read_fg_file("../secret.txt") == b"red\nblue\n"
    with pytest.raises(PermissionError):
        allowed.read_fg_file(str(secret))
