"""What is written is read by protocol buffers; what neither system can express is reported, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.text_format import ParseError

import dssm_assets_tests.fixtures.tokenizers as fixtures
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.extras.easyrec.export_pipeline import ExportSource, export_pipeline
from dssm_assets.extras.easyrec.import_settings import EASYREC, TORCH
from dssm_assets.storage.plugins import import_plugins
from dssm_assets_tests.extras.easyrec.field_tables import read_faults
from dssm_assets_tests.own_project import CHANGES

FG = {
    "features": [
        {"feature_name": "city", "feature_type": "id_feature", "expression": "user:city", "default_value": "none"},
        {"feature_name": "item", "feature_type": "id_feature", "expression": "item:item_id", "value_dim": 1},
    ]
}


def info(name: str, side: str, **rule: Any) -> FeatureInfo:
    return FeatureInfo.model_validate(
        {"side": side, "kind": "categorical", "is_multi": name == "city", "embedding_name": name, "embedding_dim": 4} | rule
    )


def exported(system: str, model: Model | None = None, training: Training | None = None) -> tuple[str, list[str]]:
    infos = {
        "city": info("city", "user", num_embeddings=5, vocab_dict={"rome": 2, "oslo": 3}),
        "item": info("item", "item", num_embeddings=102, vocab_size=100),
    }
    plan = StepPlan(20, 19)
    return export_pipeline(
        ExportSource(parse_fg(FG), infos, {"odd": "DROP IT: constant"}, model or Model(), training or Training(), plan),
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


EVERY_TYPE: list[dict[str, Any]] = [
    {"feature_type": "id_feature", "expression": "user:tags", "weighted": True, "separator": ",", "combiner": "mean", "group": "u"},
    {"feature_type": "raw_feature", "expression": "user:age", "normalizer": "method=log10", "default_value": 3, "value_type": "Float"},
    {"feature_type": "combo_feature", "expression": ["user:city", "user:tags"], "need_prefix": False},
    {"feature_type": "lookup_feature", "map": "user:likes", "key": "const:shoes", "combiner": "max"},
    {"feature_type": "match_feature", "nested_map": "user:seen", "pkey": "ALL", "skey": "ALL", "match_type": "multihit", "combiner": "max"},
    {"feature_type": "expr_feature", "expression": "a+1", "variables": ["user:a"], "normalizer": "method=log10"},
    {"feature_type": "overlap_feature", "query": "user:q", "title": "user:t", "method": "is_equal", "default_value": 1},
    {"feature_type": "kv_dot_product", "query": "user:x", "document": "user:y", "kv_delimiter": "="},
    {"feature_type": "bool_mask_feature", "expression": ["user:tags", "user:mask"], "vocab_list": ["a"]},
    {"feature_type": "tokenize_feature", "expression": "item:title", "vocab_file": "bpe.json", "output_type": "word_id",
     "text_normalizer": {"norm_options": ["TEXT_UPPER2LOWER"]}},
    {"feature_type": "sequence_id_feature", "expression": "user:ids", "sequence_length": 5, "oldest_first": True},
    {"feature_type": "sequence_raw_feature", "expression": "user:prices", "sequence_delim": "|"},
]  # fmt: skip
HISTORY = {
    "sequence_name": "history", "feature_type": "sequence_feature", "sequence_length": 7, "sequence_delim": "|",
    "features": [{"feature_type": "id_feature", "feature_name": "item", "expression": "user:item_ids"}],
}  # fmt: skip


@pytest.mark.parametrize("sampler", ["weighted", "v2", "hard", "hard_v2"])
@pytest.mark.parametrize("system", [TORCH, EASYREC])
def test_protocol_buffers_read_every_feature_type_and_sampler(system: str, sampler: str) -> None:
    named = [{"feature_name": f"f{number}", **definition} for number, definition in enumerate(EVERY_TYPE)]
    folder = Path(fixtures.__file__).parent
    spec = parse_fg({"features": [*named, HISTORY]}, read_file=lambda name: (folder / name).read_bytes())
    infos = {}
    for feature in (*spec.features, *spec.sequence_features):
        rule = {"boundary": [1.5]} if feature.kind is Kind.NUMERIC else {"num_buckets": 9}
        rule |= {"sequence_name": "history", "sequence_length": 7} if feature.sequence is not None else {}
        infos[feature.name] = info(
            feature.name, str(feature.side), kind=str(feature.kind), is_multi=feature.is_multi, num_embeddings=11, **rule
        )
    infos["f2"] = info("f2", "user", num_embeddings=102, vocab_size=100)
    model = Model.model_validate({"sampler": sampler, "num_sample": 9, "num_hard_sample": 2})
    source = ExportSource(spec, infos, {}, model, Training(gradient_clip=1.0), StepPlan(20, 19))
    text, notes = export_pipeline(source, system)
    assert read_faults(text, system) == []
    lacked = [note.removeprefix("feature ") for note in notes if ": TorchEasyRec has no " in note]
    reported = ["f4: combiner", "f5: normalizer", "f6: default_value", "f7: kv_delimiter", "f10: oldest_first"]
    assert lacked == ([note.replace(": ", ": TorchEasyRec has no ") for note in reported] if system == TORCH else [])
    if system == TORCH:
        without = text.replace('sequence_length: 7\n    sequence_delim: "|"\n', "sequence_length: 7\n")
        assert [fault.rpartition(".")[2] for fault in read_faults(without, system)] == ["sequence_delim"]


def test_fields_that_are_unknown_or_of_another_type_are_refused() -> None:
    text = exported(EASYREC)[0]
    for old, new in (("batch_size: ", "batch_sise: "), ("CSVInput", '"CSVInput"'), ("num_steps: 20", "num_steps: 1.5")):
        with pytest.raises(ParseError):
            read_faults(text.replace(old, new), EASYREC)


def test_an_export_says_what_another_system_has_in_place_of_a_plug_in(own_project: Path) -> None:
    ConfigError.raise_if(import_plugins(CHANGES["plugins"]))
    text, notes = exported("EasyRec", Model(loss="bpr", sampler="rare_first"))
    assert "negative_sampler {" in text
    assert {
        "model.loss = bpr: SOFTMAX_CROSS_ENTROPY in its place",
        "model.sampler = rare_first: their samplers follow the weights of items.txt",
    } <= set(notes)
