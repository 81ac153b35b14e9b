"""What neither system can express is reported, key by key."""

from __future__ import annotations

from typing import Any

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.easyrec.export_pipeline import ExportSource, export_pipeline
from dssm_assets.core.easyrec.import_settings import EASYREC, TORCH
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics.feature_rules import FeatureInfo

FG = {
    "features": [
        {"feature_name": "city", "feature_type": "id_feature", "expression": "user:city", "default_value": "none"},
        {"feature_name": "item", "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1},
    ]
}


def info(name: str, side: str, **rule: Any) -> FeatureInfo:
    return FeatureInfo.model_validate(
        {"side": side, "kind": "categorical", "is_multi": name == "city", "embedding_name": name, "embedding_dim": 4, **rule}
    )


def exported(system: str, model: Model | None = None, training: Training | None = None) -> tuple[str, list[str]]:
    infos = {
        "city": info("city", "user", num_embeddings=5, vocab_dict={"rome": 2, "oslo": 3}),
        "item": info("item", "item", num_embeddings=102, vocab_size=100),
    }
    plan = StepPlan(20, 19)
    return export_pipeline(
        ExportSource(parse_fg(FG), infos, {"odd": "DROP IT: constant"}, model or Model(), training or Training(), plan, 5),
        system,
    )


def test_tables_have_the_sizes_of_the_day() -> None:
    text, notes = exported(TORCH)
    assert 'feature_name: "city"\n    default_value: "none"\n    expression: "user:city"\n' in text
    assert 'vocab_dict {\n      key: "rome"\n      value: 2\n    }\n' in text
    assert "hash_bucket_size: 500\n" in text  # 100 values x 5
    assert "feature odd is left out: DROP IT: constant" in notes
    assert any("item 100" in note for note in notes)
    text, notes = exported(EASYREC)
    assert 'input_names: "city"\n  feature_type: TagFeature\n  separator: "\\003"\n' in text
    assert "hash_bucket_size: 25\n" in text  # 5 embeddings x 5
    assert "num_steps: 20\n" in text
    assert "feature city: the buckets of its vocab_dict, so it has hash buckets" in notes


def test_every_setting_that_is_not_written_is_reported() -> None:
    plain = {system: set(exported(system)[1]) for system in (TORCH, EASYREC)}
    model = Model.model_validate({"prior": True, "skip": True, "sampler": "mixed", "learn_temperature": True, "loss": "l2"})
    training = Training(validation_days=2, weight_average=0.9)
    reported = {system: set(exported(system, model, training)[1]) - plain[system] for system in plain}
    both = {
        "model.prior = True",
        "model.skip = True",
        "training.validation_days = 2",
        "model.sampler = mixed: their samplers follow the weights of items.txt",
    }
    assert reported[EASYREC] == both
    assert reported[TORCH] == both | {
        "model.learn_temperature = True",
        "training.weight_average = 0.9",
        "model.loss = l2: TorchEasyRec has softmax_cross_entropy alone",
    }
