"""Samples whose row groups go to Spark's workers equal those of one process."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dssm_assets.extras.spark.spark import SparkEngine
from dssm_assets.steps import sample
from dssm_assets.steps.workspace import Workspace, day_before
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.spark.cluster import requires_pyspark
from dssm_assets_tests.extras.spark.sessions import LocalSession
from dssm_assets_tests.steps.test_sample import DS, ROW_GROUP, check_leaking_samples, with_row_groups
from dssm_assets_tests.worlds import built_world

pytestmark = requires_pyspark

world = pytest.fixture(scope="module")(built_world)
workspace = pytest.fixture(with_row_groups)


def in_pieces(workspace: Workspace) -> Workspace:
    """Returns the workspace with the engine that sends a row group to a worker each."""
    return replace(workspace, engine=SparkEngine(workspace.tables, LocalSession()))


def test_sample_fg_in_pieces_equals_sample_fg_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace.need("sample", DS).rows > 2 * ROW_GROUP
    expected = list(sample.sample_fg(workspace, [*worlds.DAYS[:1], DS]))
    rows = [workspace.tables.read(result.manifest) for result in expected]
    original, reads = TableStore.read, []
    monkeypatch.setattr(
        TableStore, "read", lambda self, at, *how, **named: reads.append(at.key) or original(self, at, *how, **named)
    )
    results = list(sample.sample_fg(in_pieces(workspace), [*worlds.DAYS[:1], DS]))
    assert [(result.facts, result.checks) for result in results] == [(result.facts, result.checks) for result in expected]
    previous = day_before(DS)
    assert sorted(reads) == [f"item_features_fg/{previous}", f"user_features_fg/{previous}"], "once, for all pieces"
    assert [workspace.tables.read(result.manifest) for result in results] == rows
    leak, parity = expected[1].checks
    assert (leak.is_passed, parity.facts["golden_rows"]) == (True, 5)


def test_positive_sample_in_pieces_equals_positive_sample_at_once(workspace: Workspace) -> None:
    (expected,) = sample.positive_sample(workspace, [DS])
    rows = workspace.tables.read(expected.manifest)
    (result,) = sample.positive_sample(in_pieces(workspace), [DS])
    assert workspace.tables.read(result.manifest) == rows
    assert (result.facts, result.checks, result.manifest.inputs) == (expected.facts, expected.checks, expected.manifest.inputs)


def test_samples_that_leak_in_pieces_do_not_replace_an_existing_partition(workspace: Workspace) -> None:
    check_leaking_samples(workspace, in_pieces(workspace))
