"""Every step reads only settings that its asset declares, and only those change the digest."""

import dataclasses
import datetime as dt
import typing

import pydantic
import pytest

from dssm_assets.core.asset_settings import FG, HOW, OWN, READS, START, digest_settings
from dssm_assets.core.config.evaluation import Takes
from dssm_assets.core.config.pipeline import Calendar, NegativeItems, PipelineConfig
from dssm_assets.defs.asset_table import all_rows
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

NOT_READ = {"name", "plugins", "gate", "serving", "storage", "platform", "engine", "spark", "duckdb"}
"""Sections that decide nothing about the rows of the assets in READS, except the gate's verdict."""
SECTIONS = set(PipelineConfig.model_fields) - NOT_READ - {"calendar"}
"""Sections that count. Of the calendar the first day does, and the zone, which all readers of a log read."""


class RecordedConfig(PipelineConfig):
    """A configuration that records which of its sections are read."""

    def __getattribute__(self, name):
        if name in SECTIONS:
            READ.add(name)
        return super().__getattribute__(name)


class RecordedCalendar(Calendar):
    """A calendar that records whether its first day is read."""

    def __getattribute__(self, name):
        if name == "start":
            READ.add(START)
        return super().__getattribute__(name)


READ: set[str] = set()


def digests(loaded, changes=None):
    config = loaded.config
    for key, value in (changes or {}).items():
        section, _, name = key.partition(".")
        old = getattr(config, section)
        config = config.model_copy(update={section: old.model_copy(update={name: value}) if name else value})
    return digest_settings(config, loaded.fg, loaded.read_fg_file)


def changed(loaded, changes):
    before, after = digests(loaded), digests(loaded, changes)
    return {asset for asset in before if before[asset] != after[asset]}


def test_steps_read_what_their_assets_declare(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    config = loaded.config
    sections = {name: getattr(config, name) for name in PipelineConfig.model_fields}
    sections["calendar"] = RecordedCalendar.model_construct(**dict(config.calendar))
    recorded = RecordedConfig.model_construct(**sections)
    workspace = worlds.open_workspace(dataclasses.replace(loaded, config=recorded))
    undeclared = {}
    for row in all_rows():
        if row.name not in READS:
            continue
        READ.clear()
        made = list(row.step(workspace, [EVALUATION_DAY] if row.is_windowed else DAYS[-2:]))
        assert made
        declared = {key.partition(".")[0] for key in READS[row.name]} | set(READS[row.name])
        if undeclared_ones := READ - declared:
            undeclared[row.name] = sorted(undeclared_ones)
    assert undeclared == {}


@pytest.mark.parametrize("place", sorted(HOW | OWN | NOT_READ | {key for keys in READS.values() for key in keys}))
def test_every_named_setting_exists(place):
    model = PipelineConfig
    for name in place.split("."):
        assert name in model.model_fields, place
        annotation = model.model_fields[name].annotation
        found = [one for one in (annotation, *typing.get_args(annotation)) if isinstance(one, type)]
        model = next((one for one in found if issubclass(one, pydantic.BaseModel)), None)


def test_every_asset_of_a_day_declares_its_settings():
    """The others are made when they are asked for, never because something else was."""
    undeclared = {row.name for row in all_rows()} - set(READS)
    assert undeclared - {"experiments", "feature_importance", "vector_store"} == {"serving_bundle"}
    assert set(READS) - {"shown", "online_rates"} <= {row.name for row in all_rows()}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"negative_items.alpha": 0.5}, {"negative_items", "train_samples", "training_config"}),
        ({"gate.min_pairs": 7}, {"total_hit_rate"}),
        (
            {"raw_features.statistic_days": [1, 5]},
            {"user_activity", "item_activity", "pair_activity", "user_all_feature", "item_all_feature"},
        ),
        ({"calendar.start": dt.date(2025, 12, 1)}, {asset for asset, keys in READS.items() if START in keys}),
        ({"training.num_threads": 3}, set()),
        ({"evaluation.num_processes": 2}, set()),
        ({"evaluation.show_people": False, "explore.item_columns": ["category"]}, set()),
        ({"evaluation.shown": Takes(events=["buy"])}, {"online_rates"}),
        ({"storage.grace_hours": 3.0}, set()),
        ({"serving.keep_bundles": 9}, set()),
    ],
)
def test_a_changed_key_changes_the_digest_of_its_readers(world, changes, expected):
    assert changed(world.loaded, changes) == expected


def test_a_source_elsewhere_changes_nothing_and_other_columns_do(world):
    loaded = world.loaded
    tables = loaded.config.tables
    moved = tables.model_copy(update={"behavior": tables.behavior.model_copy(update={"uri": "elsewhere"})})
    assert changed(loaded, {"tables": moved}) == set()
    other = tables.model_copy(update={"behavior": tables.behavior.model_copy(update={"time_unit": "ms"})})
    assert changed(loaded, {"tables": other}) >= {"behavior_table"}


def test_other_feature_definitions_change_what_is_encoded_with_them(world):
    loaded = world.loaded
    fewer = {"features": loaded.fg["features"][1:]}
    before, after = digests(loaded), digest_settings(loaded.config, fewer, loaded.read_fg_file)
    other = {asset for asset in before if before[asset] != after[asset]}
    assert {"user_features_fg", "sample_fg", "feature_config", "dssm_model"} <= other
    assert not other & {"behavior", "user_activity", "user_all_feature", "sample", "feature_counts"}


def test_content_of_a_named_file_counts_and_its_name_does_not(world):
    loaded = world.loaded
    files = {"a.txt": b"red\nblue\n", "same.txt": b"red\nblue\n", "b.txt": b"blue\nred\n"}

    def digest(name):
        sub = {"feature_name": "color", "vocab_file": name}
        fg = {"features": [{"feature_name": "click", "features": [sub]}]}
        return digest_settings(loaded.config, fg, files.__getitem__)

    first, same, other = map(digest, files)
    assert same == first
    assert {asset for asset in first if first[asset] != other[asset]} == {asset for asset, keys in READS.items() if FG in keys}


class LaterItems(NegativeItems):
    """Negative items of a version with another default."""

    alpha: float = 0.25


class AddedItems(NegativeItems):
    """Negative items of a version with one more key."""

    limit: int | None = None


@pytest.mark.parametrize(
    ("later", "expected"), [(LaterItems, {"negative_items", "train_samples", "training_config"}), (AddedItems, set())]
)
def test_another_default_of_a_later_version_counts_and_a_new_key_that_is_null_does_not(world, later, expected):
    loaded = world.loaded
    sections = {name: getattr(loaded.config, name) for name in PipelineConfig.model_fields}
    version = pydantic.create_model("Version", __base__=PipelineConfig, negative_items=(later, later()))
    before = PipelineConfig.model_construct(**{**sections, "negative_items": NegativeItems()})
    after = version.model_construct(**{**sections, "negative_items": later()})
    digests_before, digests_after = (digest_settings(one, loaded.fg, loaded.read_fg_file) for one in (before, after))
    assert {asset for asset in digests_before if digests_before[asset] != digests_after[asset]} == expected
