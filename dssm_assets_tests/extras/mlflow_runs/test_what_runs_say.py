"""What the MLflow run of a model says, without MLflow: settings, losses and scores by epoch, hit rates."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import SvdInit, Training
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA
from dssm_assets.core.file_names import ModelFile
from dssm_assets.extras.mlflow_runs.model_runs import list_fit_metrics, list_hit_rates, list_params

SEARCH = {
    "loss_by_step": [8.0, 6.0, 5.0, 3.0, 3.0, 1.0],
    "scores": [
        {"epoch": 1, "hit_rate": 0.2, "plain_hit_rate": 0.1, "prior": [1.0, 0.0, 3.0]},
        {"epoch": 2, "hit_rate": 0.4, "plain_hit_rate": 0.3, "prior": [1.0, 0.0, 3.0]},
        {"epoch": 3, "hit_rate": 0.3, "plain_hit_rate": 0.3, "prior": [1.0, 0.0, 3.0]},
    ],
}
SCORES = [
    ("validation_hit_rate", 0.2, 1),
    ("validation_hit_rate_without_prior", 0.1, 1),
    ("validation_hit_rate", 0.4, 2),
    ("validation_hit_rate_without_prior", 0.3, 2),
    ("validation_hit_rate", 0.3, 3),
    ("validation_hit_rate_without_prior", 0.3, 3),
]


def test_loss_is_the_mean_of_each_epoch():
    stored = {ModelFile.REPORT: {"epochs": 2}, ModelFile.LOSSES: [9.0, 8.0, 7.0, 3.0, 2.0, 1.0]}
    assert list(list_fit_metrics(stored, is_refit=True)) == [("loss", 8.0, 1), ("loss", 2.0, 2)]


def test_towers_that_were_fitted_again_have_losses_beside_those_of_the_search():
    stored = {ModelFile.REPORT: {"epochs": 2}, ModelFile.LOSSES: [9.0, 7.0, 4.0, 2.0], ModelFile.VALIDATION: SEARCH}
    losses = [("loss", 8.0, 1), ("loss", 3.0, 2)]
    searched = [("search_loss", 7.0, 1), ("search_loss", 4.0, 2), ("search_loss", 2.0, 3)]
    assert list(list_fit_metrics(stored, is_refit=True)) == losses + searched + SCORES


def test_towers_of_the_search_have_its_losses_of_all_epochs():
    """The second epoch was the best of three, whose losses are all stored."""
    stored = {ModelFile.REPORT: {"epochs": 2}, ModelFile.LOSSES: SEARCH["loss_by_step"], ModelFile.VALIDATION: SEARCH}
    assert list(list_fit_metrics(stored, is_refit=False)) == [("loss", 7.0, 1), ("loss", 4.0, 2), ("loss", 2.0, 3), *SCORES]


def test_without_a_prior_there_is_one_score():
    search = {"loss_by_step": [2.0], "scores": [{"epoch": 1, "hit_rate": 0.2, "plain_hit_rate": 0.2, "prior": None}]}
    stored = {ModelFile.REPORT: {"epochs": 1}, ModelFile.LOSSES: [2.0], ModelFile.VALIDATION: search}
    assert list(list_fit_metrics(stored, is_refit=False)) == [("loss", 2.0, 1), ("validation_hit_rate", 0.2, 1)]


def test_settings_are_keys_of_the_configuration():
    features = [SimpleNamespace(side=side) for side in ("user", "item", "item", "sequence")]
    settings = SimpleNamespace(
        manifest=SimpleNamespace(ds="2024-01-12"),
        spec=SimpleNamespace(features=features),
        model=Model(hidden_units=[64, 32], event_weights={"buy, again": 2.0}),
        training=Training(svd_init=SvdInit(embedding="item"), batch_size=512),
        seed=7,
        first_day="2024-01-06",
    )
    params = list_params(settings, 1234)
    assert {name: params[name] for name in params if not name.startswith(("model.", "training."))} == {
        "seed": "7",
        "window.days": "6",
        "samples": "1234",
        "features.user": "1",
        "features.item": "2",
        "features.sequence": "1",
    }
    assert params["model.hidden_units"] == "[64, 32]"
    assert params["model.event_weights"] == '{"buy, again": 2.0}', "names of events are in no name of a parameter"
    assert params["model.sampler"] == "weighted"
    assert params["model.in_batch"] == "true"
    assert params["training.batch_size"] == "512"
    assert params["training.svd_init.embedding"] == "item"
    assert "training.gradient_clip" not in params, "it has no value"


def test_hit_rates_are_those_of_whole_lists_over_all_items():
    def row(scorer, population="warm", scope="all", k=10, hit_rate=0.5):
        return {"scorer": scorer, "scope": scope, "population": population, "k": k, "hit_rate": hit_rate}

    rows = [
        row("model", hit_rate=0.25),
        row("model", population="all", hit_rate=0.125),
        row("model", population="cold"),
        row("model", scope="unseen"),
        row("model", k=5),
        row("merged"),
        row("merged_without_vectors"),
        row("channel_popular"),
        row("popularity", hit_rate=0.0),
    ]
    assert list(list_hit_rates(pa.Table.from_pylist(rows, TOTAL_SCHEMA), 10)) == [
        ("hit_rate_10_warm/vectors", 0.25, 0),
        ("hit_rate_10_warm/merged", 0.5, 0),
        ("hit_rate_10_warm/popularity", 0.0, 0),
        ("hit_rate_10_all/vectors", 0.125, 0),
    ]
