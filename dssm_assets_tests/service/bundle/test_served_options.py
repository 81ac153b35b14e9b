"""A model with several poolings, interests and a prior: stored, evaluated and served the same way."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.core.models.prior import Prior
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.service.engine.recall_engine import ListOptions, RecallEngine, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundles import vector_of
from dssm_assets_tests.steps.refitted_worlds import refit, vectors_of
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOW_DAYS

DIMS, INTERESTS = 8, 2
CHANGES = {
    "model": {
        "poolings": [
            {"kind": "attention", "length": 6},
            {"kind": "root", "length": 9, "half_life_days": 2.0, "sqrt_repeats": True},
            {"kind": "recency", "scale": 1.5},
            {"kind": "sequence", "length": 7, "num_blocks": 1},
        ],
        "num_interests": INTERESTS,
        "prior": True,
        "skip": True,
        "norm": "batch",
        "embedding_dropout": 0.2,
        "learn_temperature": True,
    },
    "training": {"epochs": 3, "validation_days": 1, "group_users": True},
}


@pytest.fixture(scope="module")
def refitted_world(tmp_path_factory):
    """Returns the workspace, and step -> check name -> check."""
    return refit(tmp_path_factory, tmp_path_factory.mktemp("options") / "world", CHANGES)


def prior_of(workspace):
    return Prior.model_validate_json(workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), "prior.json"))


def bought(days):
    """Returns (item, age) of every purchase on some days, with ages in days before the start of the day after the last one."""
    end_ms = worlds.start_ms(days.stop)
    rows = [row for row in worlds.log_rows(list(days)) if row["event"] == "buy"]
    return [(row["item_id"], (end_ms - row["ts"]) / 86_400_000) for row in rows]


def expected_priors(prior, days):
    counts = Counter(item for item, _ in bought(days))
    recent = Counter()
    for item, age in bought(days):
        recent[item] += 2 ** (-age / prior.half_life_days)
    names = [row["item_id"] for row in worlds.item_rows()]
    values = [prior.popularity * np.log(counts[n] + 1) + prior.recent * np.log(recent[n] + 0.3) for n in names]
    return dict(zip(names, values - np.mean(values), strict=True))


def test_stored_vectors_are_unit_vectors_with_the_prior_or_a_one_appended(refitted_world):
    workspace, checks = refitted_world
    items, users = vectors_of(workspace, "item"), vectors_of(workspace, "user")
    last = len(DAYS) - 1
    expected = expected_priors(prior_of(workspace), range(last - WINDOW_DAYS, last))
    assert {name: vector[-1] for name, vector in items.items()} == pytest.approx(expected, abs=1e-5)
    assert max(expected.values()) > 0.01
    for vector in users.values():
        interests = vector.reshape(INTERESTS, DIMS + 1)
        assert interests[:, -1].tolist() == [1, 1]
        assert np.linalg.norm(interests[:, :-1], axis=1) == pytest.approx(1, rel=1e-5)
    made = ("item_vectors", "structure"), ("user_vectors", "structure")
    for step, check in (*made, ("serving_bundle", "exported_towers"), ("serving_bundle", "index_recall")):
        assert checks[step][check].is_passed, checks[step][check].sentence


def test_evaluated_scores_are_the_best_interests_product_with_the_prior(refitted_world):
    workspace, _ = refitted_world
    items, users = vectors_of(workspace, "item"), vectors_of(workspace, "user")
    names, matrix = list(items), np.stack(list(items.values()))
    for row in workspace.tables.read(workspace.need("hit_rate_detail", EVALUATION_DAY)).to_pylist():
        scores = (users[row["user_id"]].reshape(INTERESTS, -1) @ matrix.T).max(0)
        best = sorted(zip(-scores, names, strict=True))[: len(row["topk_ids"])]
        assert row["topk_scores"] == pytest.approx([-score for score, _ in best], abs=1e-5)


def requests_of(workspace):
    """Returns user -> the features and the history that a request would send, from the tables before feature generation."""
    rows = workspace.tables.read(workspace.need("user_all_feature", EVALUATION_DAY)).to_pylist()
    histories = {row["user_id"]: {"item_ids": [], "event_times_ms": [], "category": []} for row in rows}
    for ds in DAYS:
        for row in workspace.tables.read(workspace.need("user_history", ds)).to_pylist():
            for name, values in histories[row["user_id"]].items():
                values.extend(row[name])
    return {
        row["user_id"]: UserInputs(dict(zip(row, map(to_json, row.values()), strict=True)), histories[row["user_id"]])
        for row in rows
    }


def to_json(value):
    """Returns a value as JSON would carry it: the pairs of a map as a mapping."""
    is_map = isinstance(value, list) and value and isinstance(value[0], tuple)
    return dict(value) if is_map else value


def test_request_with_a_stored_users_features_gets_the_stored_vector(refitted_world):
    workspace, _ = refitted_world
    engine = RecallEngine.open(open_bundles(workspace.loaded).root)
    manifest = engine.bundle.manifest
    assert (manifest["dims"], manifest["interests"], manifest["has_prior"]) == (DIMS + 1, INTERESTS, True)
    assert (manifest["compared_by"], manifest["frozen_dims"]) == ("inner product", 0)
    requests = requests_of(workspace)
    assert set(requests) == set(worlds.users())
    for user, request in requests.items():
        stored = engine.bundle.user_vector(engine.bundle.users.find_row(user))
        assert vector_of(engine, request).reshape(-1) == pytest.approx(stored, abs=1e-5)
    features, history = requests["a0"].features, requests["a0"].history
    cold = engine.recall(UserRequest(inputs=requests["a0"], options=ListOptions(5)))
    known = engine.recall_for_user("a0", ListOptions(5))
    assert cold.scores == pytest.approx(known.scores, abs=1e-5)
    with pytest.raises(InputError, match="weight halves every 2 days"):  # the root pooling has a half-life
        vector_of(engine, UserInputs(features, {name: history[name] for name in ("item_ids", "category")}))
    # The bundle includes the evaluation day, and so does its prior.
    window = range(len(DAYS) - WINDOW_DAYS, len(DAYS))
    expected = expected_priors(prior_of(workspace), window)
    served = engine.bundle.item_vectors
    for name, value in expected.items():
        assert served[engine.bundle.items.find_row(name), -1] == pytest.approx(value, abs=1e-5)
