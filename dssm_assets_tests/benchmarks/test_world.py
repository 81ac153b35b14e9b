"""The generated world has the configured sizes, is skewed, and is determined by its seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.steps import source
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests.benchmarks.world import World, write_world
from dssm_assets_tests.benchmarks.world_features import feature_definitions, load_world

WORLD = World(rows=5_000, users=300, items=200, days=2)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.parquet"))}


def test_world_is_determined_by_its_seed(tmp_path: Path) -> None:
    for name, world in (("first", WORLD), ("second", WORLD), ("other", replace(WORLD, seed=18))):
        write_world(world, tmp_path / name)
    assert _files(tmp_path / "first") == _files(tmp_path / "second")
    assert not set(_files(tmp_path / "first").values()) & set(_files(tmp_path / "other").values())


def test_ranks_follow_the_zipf_mandelbrot_distribution() -> None:
    world = World(rows=200_000, users=1_000, items=1_000, days=1)
    for side, exponent in (("user", 0.8), ("item", 1.0)):
        counts = Counter(world.behavior(0).column(f"{side}_id").to_pylist())
        weights = 1 / (np.arange(1_000) + 20.0) ** exponent
        expected = 200_000 * weights / weights.sum()
        ids = (world.user_ids if side == "user" else world.item_ids)(np.array([0, 100, 999])).to_pylist()
        # Five standard deviations of a count.
        for rank, name in zip((0, 100, 999), ids, strict=True):
            assert abs(counts[name] - expected[rank]) < 5 * np.sqrt(expected[rank])


def test_world_has_30_numbers_22_categories_5_combinations_2_bags() -> None:
    features = parse_fg(feature_definitions()).features
    kinds = Counter((feature.operator.feature_type, feature.is_multi) for feature in features)
    assert kinds == {
        ("raw_feature", False): 30,
        ("id_feature", False): 22,
        ("combo_feature", False): 5,
        ("id_feature", True): 2,
    }
    assert sum(feature.kind is Kind.NUMERIC for feature in features) == 30


def test_pipeline_reads_the_sources_and_every_event_is_on_its_day(tmp_path: Path) -> None:
    write_world(WORLD, tmp_path)
    workspace = open_workspace(load_world(WORLD, tmp_path, window_days=2))
    for result, ds in zip(source.behavior_table(workspace, WORLD.log_days), WORLD.log_days, strict=True):
        assert (result.manifest.ds, result.manifest.rows) == (ds, 2_500)
        assert result.facts["rows_on_other_days"] == 0
    (users,) = source.user_table(workspace, [WORLD.day_before_log])
    assert users.manifest.rows == 300
