"""Downstream of a daily table that is materialized again: stale if its content changed, and never run automatically."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContext

from dssm_assets.definitions import build_definitions
from dssm_assets_tests import worlds

CHAIN = ["user_table", "item_table", "behavior_table", "behavior", "user_history", "user_history_fg"]
DAYS = worlds.DAYS[:3]
OLD = DAYS[1]


class _Context(LoadingContext):
    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._loaders: dict[Any, Any] = {}

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._instance

    @property
    def loaders(self) -> dict[Any, Any]:
        return self._loaders


class _Scene:
    """The first days of a world, materialized over the range in one run."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.loaded = worlds.write_world(folder)
        self.instance = dg.DagsterInstance.ephemeral()
        self.materialize(CHAIN, DAYS)

    def materialize(self, names: list[str], days: list[str]) -> None:
        worlds.materialize(self.loaded, names, days, self.instance)

    def change_log(self) -> None:
        """Adds a late purchase to the old day."""
        late = {"user_id": "a0", "item_id": "a_09", "price": 9.0, "page": "home", "event": "buy", "ts": worlds.start_ms(1) + 1}
        worlds.write_rows(self.folder / "source" / "behavior.parquet", [*worlds.log_rows(range(len(worlds.DAYS))), late])

    def stale(self) -> Mapping[tuple[str, str], str]:
        """Returns (asset, day) -> the reason that the UI shows for each stale partition."""
        graph = build_definitions(self.loaded).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, _Context(self.instance))
        cells = [(name, ds) for name in CHAIN for ds in DAYS]
        found = {cell: resolver.get_stale_causes(dg.AssetKey(cell[0]), cell[1]) for cell in cells}
        reasons = {}
        for cell, causes in found.items():
            for cause in causes:
                assert cause.dependency is not None
                reasons[cell] = f"{cause.reason}: {cause.dependency.asset_key.to_user_string()}"
        return reasons


def test_days_are_stale_once_the_content_of_an_input_has_changed_and_nothing_is_started(tmp_path: Any) -> None:
    scene = _Scene(tmp_path)
    assert scene.stale() == {}
    for names, days in ((["behavior_table", "behavior"], DAYS), (CHAIN, [OLD]), (["behavior_table"], [OLD])):
        scene.materialize(names, days)
        assert scene.stale() == {}, "the content is the same"
    scene.change_log()
    before = scene.instance.get_runs_count()
    scene.materialize(["behavior_table"], [OLD])
    assert scene.stale() == {("behavior", OLD): "has a new dependency data version: behavior_table"}
    assert scene.instance.get_runs_count() == before + 1, "no downstream asset is run automatically"
    scene.materialize(["behavior"], [OLD])
    assert set(scene.stale()) == {("user_history", OLD)}, "the next asset becomes stale once its input has changed"
    scene.materialize(["user_history", "user_history_fg"], [OLD])
    assert scene.stale() == {}
