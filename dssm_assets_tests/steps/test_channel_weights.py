"""The step of channel_weights on the tiny world: which days are held out, what is read of them, what is switched off."""

from __future__ import annotations

import pytest

from dssm_assets.core.channels.merge import Term, default_merges
from dssm_assets.core.channels.own_history import OWN_EVENTS
from dssm_assets.core.channels.weights_table import from_rows
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS, USER_VECTORS
from dssm_assets.steps.channel_weights import channel_weights
from dssm_assets.steps.evaluation import hit_counts
from dssm_assets.steps.workspace import day_before, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

YESTERDAY, BEFORE = day_before(EVALUATION_DAY), day_before(EVALUATION_DAY, 2)


@pytest.fixture
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def opened(world, folder, **channels):
    return open_workspace(world.copy(folder / "world", {"channels": channels}))


def run(step, workspace):
    (result,) = step(workspace, [EVALUATION_DAY])
    return result


def merges_of(workspace, result):
    return {one.name: one for one in from_rows(workspace.tables.read(result.manifest).to_pylist(), tuple(ChannelName))}


def put_vectors(workspace, ds):
    """Stores the evaluation day's vectors as if they were an earlier day's."""
    for spec in (ITEM_VECTORS, USER_VECTORS):
        workspace.tables.write(spec, ds, workspace.tables.read(workspace.need(spec.name, EVALUATION_DAY)))


def test_latest_days_with_enough_pairs_are_held_out(world, tmp_path):
    one = run(channel_weights, opened(world, tmp_path / "one", held_out_pairs=1))
    assert (one.facts["held_out_days"], one.facts["has_held_out_vectors"]) == (YESTERDAY, False)
    two = run(channel_weights, opened(world, tmp_path / "two", held_out_pairs=one.facts["held_out_pairs"] + 1))
    assert two.facts["held_out_days"] == f"{YESTERDAY}, {BEFORE}"
    assert two.facts["held_out_pairs"] > one.facts["held_out_pairs"]


def test_nothing_of_the_evaluation_day_is_read_but_the_corpus(world, tmp_path):
    result = run(channel_weights, opened(world, tmp_path))
    of_the_day = {key for key in result.manifest.inputs if key.endswith(EVALUATION_DAY)}
    assert of_the_day == {f"negative_items/{EVALUATION_DAY}"}
    assert f"positive_sample/{YESTERDAY}" in result.manifest.inputs


def test_earlier_days_with_vectors_are_preferred(world, tmp_path):
    workspace = opened(world, tmp_path, held_out_pairs=1)
    put_vectors(workspace, BEFORE)
    result = run(channel_weights, workspace)
    assert (result.facts["held_out_days"], result.facts["has_held_out_vectors"]) == (BEFORE, True)
    assert {f"item_vectors/{BEFORE}", f"user_vectors/{BEFORE}"} <= set(result.manifest.inputs)
    assert {key for key in result.manifest.inputs if key.endswith(EVALUATION_DAY)} == set()
    fitted = merges_of(workspace, result)["merged"].weights
    defaults = default_merges(tuple(ChannelName))[0].weights
    assert all(fitted[term] != defaults[term] for term in fitted if term.channel is ChannelName.VECTORS)


def test_days_with_few_pairs_start_from_the_weights_of_more_days(world, tmp_path):
    workspace, enough = opened(world, tmp_path / "a", held_out_pairs=10_000), opened(world, tmp_path / "b", held_out_pairs=1)
    put_vectors(workspace, BEFORE)
    put_vectors(enough, BEFORE)
    result = run(channel_weights, workspace)
    assert (result.facts["held_out_days"], result.facts["has_held_out_vectors"]) == (BEFORE, True)
    assert {f"positive_sample/{YESTERDAY}", f"item_vectors/{BEFORE}"} <= set(result.manifest.inputs)
    own = Term(ChannelName.OWN_HISTORY, OWN_EVENTS)
    both, alone = (merges_of(one, run(channel_weights, one))["merged"] for one in (workspace, enough))
    assert both.weights[own] != alone.weights[own]


def test_same_inputs_give_the_same_bytes(world, tmp_path):
    workspace = opened(world, tmp_path)
    assert run(channel_weights, workspace).manifest.digest == run(channel_weights, workspace).manifest.digest


def test_default_weights_read_nothing(world, tmp_path):
    workspace = opened(world, tmp_path, weights="default")
    result = run(channel_weights, workspace)
    assert result.manifest.inputs == {}
    assert merges_of(workspace, result) == {one.name: one for one in default_merges(tuple(ChannelName))}


def test_lists_are_counted_for_the_configured_channels(world, tmp_path):
    sources = [{"name": "vectors", "quota": 5}, {"name": "own_history"}]
    workspace = opened(world, tmp_path, sources=sources)
    result = run(channel_weights, workspace)
    assert set(merges_of(workspace, result)) == {"merged", "merged_without_vectors", "merged_without_own_history"}
    counted = workspace.tables.read(run(hit_counts, workspace).manifest)
    added = {name for name in counted.column("scorer").unique().to_pylist() if "merged" in name or "channel" in name}
    assert added == {"merged", "merged_without_vectors", "merged_without_own_history", "channel_own_history"}


def test_channels_that_are_switched_off_leave_the_model_and_the_baselines(world, tmp_path):
    workspace = opened(world, tmp_path, is_enabled=False)
    assert run(channel_weights, workspace).manifest.rows == 0
    scorers = workspace.tables.read(run(hit_counts, workspace).manifest).column("scorer").unique().to_pylist()
    assert [name for name in scorers if "merged" in name or "channel" in name] == []
