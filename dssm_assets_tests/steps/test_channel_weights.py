"""The step of channel_weights on the tiny world: which days are held out, what is read of them, what is switched off.

The tiny world is fitted without validation days; `fitted` fits it again with some."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dssm_assets.core.channels.channel import OWN_EVENTS
from dssm_assets.core.channels.merge import IS_OWN_ITEM, Signal, Term, default_merges, from_rows
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.evaluation.evaluation_tables import is_part
from dssm_assets.core.evaluation.truth import ground_truth
from dssm_assets.core.file_names import ModelFile
from dssm_assets.steps import channel_weights as steps_of_weights
from dssm_assets.steps.channel_weights import ValidationVectors, channel_weights, held_out_spans
from dssm_assets.steps.dssm_model import dssm_model
from dssm_assets.steps.feature_config import training_config
from dssm_assets.steps.scoring import hit_counts
from dssm_assets.steps.workspace import day_before, open_workspace
from dssm_assets_tests.worlds import EVALUATION_DAY

YESTERDAY, BEFORE = day_before(EVALUATION_DAY), day_before(EVALUATION_DAY, 2)


def opened(world, folder, **channels):
    return open_workspace(world.copy(folder / "world", {"channels": channels}))


def run(step, workspace):
    (result,) = step(workspace, [EVALUATION_DAY])
    return result


def merges_of(workspace, result):
    return {one.name: one for one in from_rows(workspace.tables.read(result.manifest).to_pylist(), tuple(ChannelName))}


def fitted(world, folder, training, **channels):
    """Returns a copy whose model is fitted with validation days."""
    workspace = open_workspace(world.copy(folder / "world", {"training": training, "channels": channels}))
    for step in (training_config, dssm_model):
        run(step, workspace)
    return workspace


def test_latest_days_with_enough_pairs_are_held_out(world, tmp_path):
    one = run(channel_weights, opened(world, tmp_path / "one", held_out_pairs=1))
    assert (one.facts["held_out_days"], one.facts["has_held_out_vectors"]) == (YESTERDAY, False)
    workspace, lines = opened(world, tmp_path / "two", held_out_pairs=one.facts["held_out_pairs"] + 1), []
    two = run(channel_weights, dataclasses.replace(workspace, log=lines.append))
    assert two.facts["held_out_days"] == f"{YESTERDAY}, {BEFORE}"
    assert two.facts["held_out_pairs"] > one.facts["held_out_pairs"]
    assert [line.partition(":")[0] for line in lines if not line.startswith("reading")] == [
        f"held out {YESTERDAY}",
        f"held out {BEFORE}",
        f"fitting 5 merges on {two.facts['held_out_pairs']} pairs of {YESTERDAY}, {BEFORE}",
    ]


def test_users_without_a_history_are_not_held_out(world, tmp_path, monkeypatch):
    every = run(channel_weights, opened(world, tmp_path / "every", held_out_pairs=1)).facts["held_out_pairs"]
    read, forgotten = steps_of_weights.read_interactions_of_users, []

    def forget_the_first(workspace, days, users, corpus):
        found = read(workspace, days, users, corpus)
        rest = slice(found.indptr[1], None)
        day = workspace.tables.read(workspace.need("positive_sample", YESTERDAY), ["user_id", "item_id"]).to_pylist()
        forgotten.append(len({one["item_id"] for one in day if one["user_id"] == users[0].as_py()}))
        indptr = np.append(0, found.indptr[1:] - found.indptr[1])
        columns = {name: getattr(found, name)[rest] for name in ("item_index", "count", "last_time_ms")}
        return dataclasses.replace(found, indptr=indptr, **columns)

    monkeypatch.setattr(steps_of_weights, "read_interactions_of_users", forget_the_first)
    known = run(channel_weights, opened(world, tmp_path / "known", held_out_pairs=1))
    assert known.facts["held_out_pairs"] == every - forgotten[0] < every


def test_days_that_are_evaluated_together_are_held_out_together(world, tmp_path):
    days = [run(channel_weights, opened(world, tmp_path / str(n), held_out_pairs=10_000, held_out_days=n)) for n in (1, 2)]
    changes = {"evaluation": {"span_days": 2}, "channels": {"held_out_pairs": 10_000, "held_out_days": 3}}
    span = run(channel_weights, open_workspace(world.copy(tmp_path / "span" / "world", changes)))
    assert span.facts["held_out_days"] == f"{BEFORE} to {YESTERDAY}"  # the third day is no whole span
    # A pair of both days counts once, and nothing is known of the second day: yesterday's history is not read.
    assert days[0].facts["held_out_pairs"] < span.facts["held_out_pairs"] <= days[1].facts["held_out_pairs"]
    history = {f"user_history_fg/{BEFORE}"}
    assert (history & set(days[0].manifest.inputs), history & set(span.manifest.inputs)) == (history, set())
    assert held_out_spans(["5", "4", "3", "2", "1"], 2) == [["4", "5"], ["2", "3"]]
    assert held_out_spans(["5", "4"], 7) == [["4", "5"]]
    assert held_out_spans([], 2) == []


def test_nothing_of_the_evaluation_day_is_read_but_model_and_corpus(world, tmp_path):
    workspace = fitted(world, tmp_path, {"validation_days": 2}, held_out_pairs=1)
    inputs = run(channel_weights, workspace).manifest.inputs
    names = ("dssm_model", "negative_items", "train_samples")
    assert {key for key in inputs if key.endswith(EVALUATION_DAY)} == {f"{name}/{EVALUATION_DAY}" for name in names}
    assert {f"positive_sample/{YESTERDAY}", f"positive_sample/{BEFORE}"} <= set(inputs)


@pytest.mark.parametrize("refit", [True, False])
def test_weights_of_the_vectors_are_fitted_on_all_validation_days(world, tmp_path, refit):
    workspace = fitted(world, tmp_path, {"validation_days": 2, "refit": refit}, held_out_pairs=1)
    result = run(channel_weights, workspace)
    assert (result.facts["held_out_days"], result.facts["has_held_out_vectors"]) == (f"{YESTERDAY}, {BEFORE}", True)
    weights, defaults = merges_of(workspace, result)["merged"].weights, default_merges(tuple(ChannelName))[0].weights
    of_vectors = [term for term in weights if term.signal.channel is ChannelName.VECTORS and term.other in (None, IS_OWN_ITEM)]
    assert all(weights[term] != defaults[term] for term in of_vectors)


def test_vectors_of_a_validation_day_are_of_towers_that_were_not_fitted_to_it(world, tmp_path):
    """By the towers of the search alone, with the history up to the day; the same scores as a fit that ends with the search."""
    one, two = (
        fitted(world, tmp_path / str(refit), {"validation_days": 2, "refit": refit}, held_out_pairs=1)
        for refit in (True, False)
    )
    corpus = one.tables.read(one.need("negative_items", EVALUATION_DAY), ["item_id"]).column(0).combine_chunks()
    users = ground_truth(one.tables.read(one.need("positive_sample", BEFORE), ["user_id", "item_id"]), []).column(0)
    scorers = [ValidationVectors(each, EVALUATION_DAY).scorer(BEFORE, users.combine_chunks(), corpus) for each in (one, two)]
    assert np.array_equal(scorers[0].user_vectors, scorers[1].user_vectors)
    assert np.array_equal(scorers[0].corpus.vectors, scorers[1].corpus.vectors)
    final = [each.artifacts.read_bytes(each.need("dssm_model", EVALUATION_DAY), ModelFile.WEIGHTS) for each in (one, two)]
    assert final[0] != final[1]


def test_validation_days_with_few_pairs_start_from_the_weights_of_more_days(world, tmp_path):
    few = fitted(world, tmp_path / "a", {"validation_days": 1}, held_out_pairs=10_000)
    enough = fitted(world, tmp_path / "b", {"validation_days": 1}, held_out_pairs=1)
    result = run(channel_weights, few)
    assert (result.facts["held_out_days"], result.facts["has_held_out_vectors"]) == (YESTERDAY, True)
    assert {f"positive_sample/{BEFORE}", f"dssm_model/{EVALUATION_DAY}"} <= set(result.manifest.inputs)
    own = Term(Signal(ChannelName.OWN_HISTORY, OWN_EVENTS))
    both, alone = (merges_of(one, run(channel_weights, one))["merged"] for one in (few, enough))
    assert both.weights[own] != alone.weights[own]


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


def test_parts_of_the_merged_list_are_counted_for_a_sample_of_users(world, tmp_path, monkeypatch):
    workspace = opened(world, tmp_path)
    run(channel_weights, workspace)
    whole = workspace.tables.read(run(hit_counts, workspace).manifest).to_pylist()
    monkeypatch.setattr("dssm_assets.steps.scoring.PART_USERS", 3)
    counted = run(hit_counts, workspace)
    rows = workspace.tables.read(counted.manifest).to_pylist()
    sample = {row["user_id"] for row in rows if row["scorer"] == "channel_own_history"}
    assert len(sample) == 3 < len({row["user_id"] for row in rows})
    assert rows == [row for row in whole if row["user_id"] in sample or not is_part(row["scorer"])]


def test_channels_that_are_switched_off_leave_the_model_and_the_baselines(world, tmp_path):
    workspace = opened(world, tmp_path, is_enabled=False)
    assert run(channel_weights, workspace).manifest.rows == 0
    scorers = workspace.tables.read(run(hit_counts, workspace).manifest).column("scorer").unique().to_pylist()
    assert [name for name in scorers if "merged" in name or "channel" in name] == []
