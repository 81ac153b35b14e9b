"""Configurations of both systems become ours; nothing is dropped in silence."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import pytest
import yaml

from dssm_assets.core.errors import ConfigError, FeatureSpecError
from dssm_assets.extras.easyrec.import_pipeline import ImportedPipeline, import_pipeline
from dssm_assets_tests.extras.easyrec.configurations import (
    EASYREC_DSSM,
    EASYREC_MIND,
    TORCH_DSSM,
    TORCH_MIND,
    UNKNOWN_SEQUENCES,
)


def fg_entries(found: ImportedPipeline) -> dict[str, dict[str, Any]]:
    return {entry.get("feature_name") or entry["sequence_name"]: entry for entry in json.loads(found.fg_json)["features"]}


def test_dssm_of_easyrec() -> None:
    found = import_pipeline(EASYREC_DSSM)
    config = found.config
    model = {
        "output_dim": 16, "hidden_units": [64], "norm": "none", "dropout": 0.2, "similarity": "COSINE", "temperature": 0.05,
        "learn_temperature": False, "learn_scale": False, "loss": "softmax", "in_batch": False, "sampler": "v2", "num_sample": 64,
        "user_positive_mask": True, "history_length": 30, "logq": 1.0,
    }  # fmt: skip
    assert config.model.model_dump(mode="json", include=set(model)) == model
    # After 2,000 steps .5 ** (2000 / 1000) = .25 is left, and 200 of 2,000 steps warm up; 0.004 x 5 is the rate of embeddings.
    training = {
        "batch_size": 512, "epochs": 3, "learning_rate": 0.004, "embedding_learning_rate": 0.02, "embedding_optimiser": "adam",
        "final_learning_rate_frac": 0.25, "warmup_frac": 0.1, "weight_average": 0.99, "gradient_clip": 2.5, "weight_decay": 0.0,
    }  # fmt: skip
    assert config.training.model_dump(mode="json", include=set(training)) == training
    assert config.features.hash_function == "farm_fingerprint64"
    assert config.features.exclude == ["unused"]
    assert config.raw_features.history_columns == ["brand"]
    assert config.tables.behavior.columns == {"user_id": "uid", "item_id": "sku"}
    assert config.events.positive == ["clk"]


def test_features_of_easyrec() -> None:
    entries = fg_entries(import_pipeline(EASYREC_DSSM))
    assert entries["tags"] == {
        "feature_name": "tags", "feature_type": "id_feature", "expression": "user:tags", "separator": ",", "weighted": True,
        "embedding_dim": 4, "hash_bucket_size": 50,
    }  # fmt: skip
    assert entries["years"]["normalizer"] == "method=minmax,min=10,max=60"
    assert (entries["years"]["expression"], entries["years"]["boundaries"]) == ("user:age", [0.25, 0.5])
    assert entries["sku"]["expression"] == "item:item_id"
    assert entries["sku_brand"]["expression"] == ["item:item_id", "item:brand"]
    assert entries["maker"]["expression"] == "item:maker"
    assert entries["maker"]["embedding_name"] == entries["brand"]["embedding_name"] == "brand"
    history = entries["history"]
    assert (history["sequence_length"], history["oldest_first"]) == (30, True)
    assert [(sub["feature_name"], sub["expression"]) for sub in history["features"]] == [
        ("bought", "user:item_ids"),  # by its embedding_name
        ("brands", "user:brand"),  # by seq_att_map
    ]


def test_dssm_of_torch_easyrec() -> None:
    found = import_pipeline(TORCH_DSSM)
    config, entries = found.config, fg_entries(found)
    model = {
        "output_dim": 24, "hidden_units": [64], "norm": "layer", "dropout": 0.3, "similarity": "COSINE", "temperature": 0.1,
        "in_batch": True, "num_sample": 0, "sampler": "hard", "num_hard_sample": 8, "learn_temperature": False, "history_length": 20,
    }  # fmt: skip
    assert config.model.model_dump(mode="json", include=set(model)) == model
    training = {
        "batch_size": 256, "epochs": 4, "learning_rate": 0.003, "weight_decay": 0.01, "embedding_learning_rate": 0.02,
        "embedding_optimiser": "adagrad", "final_learning_rate_frac": 0.1, "gradient_clip": 3.0, "precision": "bfloat16",
    }  # fmt: skip
    assert config.training.model_dump(mode="json", include=set(training)) == training
    assert config.features.hash_function == "murmur_hash64a"
    assert config.events.exposure == ["expr"]
    assert entries["likes"] == {
        "feature_name": "likes", "feature_type": "lookup_feature", "map": "user:likes", "key": "const:shoes", "combiner": "max", "embedding_dim": 4,
    }  # fmt: skip
    assert entries["city"]["default_value"] == "none"
    assert [(sub["feature_name"], sub["expression"]) for sub in entries["clicks"]["features"]] == [
        ("sku", "user:item_ids"),
        ("brand", "user:brand"),
    ]
    reported = found.record.without_counterpart
    assert {"odd", "clicks__price"} <= set(reported)
    assert any("item_tower.mlp.bias" in place for place in reported)


def test_mind_of_easyrec() -> None:
    model = import_pipeline(EASYREC_MIND).config.model
    assert (model.num_interests, model.history_length, model.output_dim, model.hidden_units) == (3, 40, 16, [64])
    assert [(pooling.kind, pooling.length) for pooling in model.poolings] == [("attention", 40)]
    assert (model.similarity, model.loss, model.in_batch, model.num_sample) == ("COSINE", "sigmoid", True, 0)
    assert model.learn_scale and not model.learn_temperature


def history_of(found: ImportedPipeline) -> list[tuple[str, str]]:
    (history,) = [entry for entry in json.loads(found.fg_json)["features"] if "features" in entry]
    return [(sub["feature_name"], sub["expression"]) for sub in history["features"]]


def test_the_only_sequence_of_a_mind_is_its_history() -> None:
    found = import_pipeline(EASYREC_MIND)
    assert history_of(found) == [("bought", "user:item_ids")]
    assert "The only sequence is taken as the ids of the user's items; " in found.report
    named = import_pipeline(EASYREC_MIND, sequence_columns={"bought": "maker"})
    assert history_of(named) == [("bought", "user:maker")]
    assert "The only sequence" not in named.report


def test_sequences_are_joined_to_columns_that_their_names_have() -> None:
    found = import_pipeline(TORCH_MIND)
    assert history_of(found) == [("seen_a", "user:item_ids"), ("seen_b", "user:maker_id")]
    assert found.config.raw_features.history_columns == ["maker_id"]
    assert "--sequence-column FEATURE=COLUMN names another: seen_a is sku, seen_b is maker_id." in found.report
    text = TORCH_MIND.replace("makers_seen", "cost_maker_id_list")  # the longer one counts
    assert history_of(import_pipeline(text))[1] == ("seen_b", "user:maker_id")
    text = TORCH_MIND.replace("makers_seen", "sku_or_cos").replace('"cost"', '"cos"').replace("item:cost", "item:cos")
    assert history_of(import_pipeline(text)) == [("seen_a", "user:item_ids")]  # sku or cos: nothing tells
    assert ": `seen_b`\n" in import_pipeline(text).report


def test_a_mind_without_a_sequence_that_is_known_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        import_pipeline(UNKNOWN_SEQUENCES, where="p.config")
    (fault,) = raised.value.faults
    assert (fault.where, fault.got) == ("p.config, the history of MIND", "seen_a, seen_b")
    assert fault.remedy.endswith("for example: --sequence-column 'seen_a=sku'")
    with pytest.raises(ConfigError, match="with a known column of the item, got none"):
        import_pipeline(EASYREC_MIND.replace("SequenceFeature", "TagFeature"))


def test_an_item_tower_of_one_feature_reads_the_id() -> None:
    found = import_pipeline(EASYREC_MIND.replace("item_id: 'sku'\n", "").replace("bought", "sku_list"))
    assert history_of(found) == [("sku_list", "user:item_ids")]
    assert fg_entries(found)["sku"]["expression"] == "item:item_id"
    assert found.config.tables.item.columns == {"item_id": "sku"}
    assert "`sku` (the only feature of the item tower)" in found.report


def test_dssm_v2_is_read_as_dssm() -> None:
    first, second = import_pipeline(TORCH_DSSM), import_pipeline(TORCH_DSSM.replace("dssm {", "dssm_v2 {"))
    assert (second.config, second.fg_json) == (first.config, first.fg_json)
    assert second.report.startswith("# pipeline.config: dssm_v2 of TorchEasyRec\n")


@pytest.mark.parametrize("name", ["easyrec", "torch", "mind", "torch_mind"])
def test_the_report_says_a_sentence_once(name: str) -> None:
    told = import_pipeline(TEXTS[name]).report.partition("## Settings")[0]
    bullets = [line for line in told.splitlines() if line.startswith("- ")]
    sentences = [line.partition(": `")[0] for line in bullets]
    assert sorted(sentences) == sorted(set(sentences))


def test_equal_sentences_are_about_several_fields() -> None:
    columns = "".join(f"input_fields {{\ninput_name: 'c{number}' input_type: STRING }}\n" for number in range(40))
    report = import_pipeline(EASYREC_MIND.replace("data_config {\n", f"data_config {{\n{columns}")).report
    assert report.count("the columns of samples follow from tables and fg.json") == 1
    assert "`data_config.input_fields.input_name` (line 4): 'c0', (line 6): 'c1', (line 8): 'c2'," in report
    assert "; `data_config.input_fields.input_type` (line 4): STRING, (line 6): STRING," in report
    both = import_pipeline(
        EASYREC_DSSM.replace("feature_names: 'uid'", "feature_names: 'uid' feature_names: 'brand' feature_names: 'maker'")
    )
    assert "- The item tower reads a feature by the side of its inputs, not by its group: brand, maker." in both.report


TEXTS = {"easyrec": EASYREC_DSSM, "torch": TORCH_DSSM, "mind": EASYREC_MIND, "torch_mind": TORCH_MIND}
NO_EFFECT = {
    "feature_type: IdFeature": "the default",
    "group_type: DEEP": "the default",
    "group_type: SEQUENCE": "the group of the history is named by history_input",
    "group_name: 'seq'": "joins parts of the configuration",
    'group_name: "clicks"': "joins parts of the configuration",
    'feature_names: "odd"': "the feature has no counterpart, which is reported",
    'expression: "item:price"': "no tower reads clicks__price, which is reported",
}


@pytest.mark.parametrize("name", TEXTS)
def test_every_field_changes_what_is_written_and_any_value_is_imported_or_refused(name: str) -> None:
    lines, whole, silent = TEXTS[name].split("\n"), import_pipeline(TEXTS[name]), []
    for number, line in enumerate(lines):
        field = line.partition(": ")[0]
        if field == line:
            continue
        for value in ("", f"{field}: -1", f"{field}: 1e99", f"{field}: 'x'", f"{field}: {{ a: 1 }}", f"{field}: [1, 2]"):
            lines[number] = value  # the others keep their lines, which the report names
            with contextlib.suppress(ConfigError, FeatureSpecError):
                found = import_pipeline("\n".join(lines))
                is_same = (found.config_yaml, found.fg_json, found.report) == (whole.config_yaml, whole.fg_json, whole.report)
                if not value and is_same and line not in NO_EFFECT and "item:price" not in lines[number - 1]:
                    silent.append((number, line))
        lines[number] = line
    assert silent == []


@pytest.mark.parametrize("name", TEXTS)
def test_an_unknown_field_is_named_wherever_it_is(name: str) -> None:
    lines = TEXTS[name].split("\n")
    opened = [number for number, line in enumerate(lines) if line.rstrip().endswith("{")]
    for number in opened:
        lines[number] += f" zz{number}: 1"
    reported = import_pipeline("\n".join(lines)).record.without_counterpart
    missing = [number for number in opened if not any(f"zz{number} " in place for place in reported)]
    assert missing == []


def test_what_is_written_is_what_was_checked() -> None:
    found = import_pipeline(EASYREC_DSSM)
    written = yaml.safe_load(found.config_yaml)
    assert written["model"]["similarity"] == "COSINE"
    assert "  temperature: 0.05    # model_config.dssm.temperature, line " in found.config_yaml
    assert "**To be filled in**" in found.report
    for sentence in found.record.differences:
        assert f"- {sentence}" in found.report
    assert "logQ" in found.report and "by their weighted mean" in found.report


def test_sections_of_a_base_are_taken_over() -> None:
    base = {
        "name": "shop",
        "calendar": {"start": "2026-02-01"},
        "tables": {"behavior": {"uri": "/log", "layout": "time_column"}},
        "events": {"funnel": ["buy"], "positive": ["buy"]},
        "model": {"prior": True},
        "training": {"validation_days": 3},
        "raw_features": {"statistic_days": [1, 7], "history_columns": ["shop"]},
        "evaluation": {"k": [20]},
    }
    found = import_pipeline(TORCH_DSSM, base=base)
    config = found.config
    assert (config.name, config.tables.behavior.uri, config.evaluation.k) == ("shop", "/log", [20])
    assert (config.model.prior, config.training.validation_days) == (False, 0)
    assert (config.raw_features.statistic_days, config.raw_features.history_columns) == ([1, 7], ["shop", "brand"])
    assert config.model.sampler == "weighted"  # the base names no event that means shown
    assert "set model.sampler to hard" in found.report
    assert "To be filled in" not in found.report


def test_definitions_of_fg_json_go_first() -> None:
    fg = {
        "features": [
            {"feature_name": "city", "feature_type": "id_feature", "expression": "user:town", "hash_bucket_size": 7},
            {"feature_name": "spare", "feature_type": "raw_feature", "expression": "user:spare"},
        ],
        "reserves": ["clk"],
    }
    found = import_pipeline(TORCH_DSSM, fg=fg)
    city = fg_entries(found)["city"]
    assert (city["expression"], city["vocab_list"], city["embedding_dim"]) == ("user:town", ["rome", "oslo"], 4)
    assert "hash_bucket_size" not in city and "value_dim" not in city
    assert found.config.features.exclude == ["spare"]
    assert "fg.json, reserves: ['clk']" in found.report


def test_faults_are_told_at_once_with_their_lines() -> None:
    text = EASYREC_DSSM.replace("batch_size: 512", 'batch_size: "many"').replace("temperature: 0.05", "temperature: COLD")
    text = text.replace("feature_names: 'tags'", "feature_names: 'tagz'").replace("[32, 16]", "[32, 8]")
    with pytest.raises(ConfigError) as raised:
        import_pipeline(text, where="p.config")
    reported = [re.sub(r"line \d+", "L", str(fault.where)) + f": {fault.got}" for fault in raised.value.faults]
    assert reported == [
        "p.config, feature_groups, feature tagz: an unknown name",
        "p.config, hidden_units: [64, 16] and [32, 8]",
        "p.config, L, model_config.dssm.temperature: COLD",
        "p.config, L, data_config.batch_size: many",
    ]


def test_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of dssm, dssm_v2, mind, got DeepFM"):
        import_pipeline(EASYREC_DSSM.replace('"DSSM"', '"DeepFM"').replace("dssm {", "deepfm {"))


def test_a_feature_across_towers_is_refused() -> None:
    with pytest.raises(FeatureSpecError, match="likes"):
        import_pipeline(TORCH_DSSM.replace("const:shoes", "item:brand"))


def test_a_feature_with_the_name_of_a_column_of_samples_is_renamed() -> None:
    found = import_pipeline(TORCH_DSSM)
    entries = fg_entries(found)
    assert "item_id" not in entries and entries["item_id_feature"]["expression"] == "item:item_id"
    assert "item_id is item_id_feature" in found.report
    fg = {
        "features": [
            {"feature_name": "twice", "feature_type": "combo_feature", "expression": ["feature:item_id", "item:brand"]}
        ]
    }
    combined = fg_entries(import_pipeline(TORCH_DSSM, fg=fg))["twice"]
    assert combined["expression"] == ["feature:item_id_feature", "item:brand"]


def test_numbers_that_are_read_differently_are_reported() -> None:
    text = TORCH_DSSM.replace('feature_names: "clicks__brand"', 'feature_names: "clicks__price"').replace(
        "boundaries: [1, 2]", "value_dim: 3"
    )
    reported = import_pipeline(text).record.differences
    assert any(sentence.endswith("each with an embedding: age, likes.") for sentence in reported)
    assert any(sentence.startswith("Numbers of the history") and sentence.endswith(": clicks__price.") for sentence in reported)
    assert any(sentence.startswith("Vectors") and sentence.endswith(": age.") for sentence in reported)


def test_every_bad_definition_of_fg_json_is_reported() -> None:
    unnamed = [
        1,
        {"feature_type": "id_feature"},
        {"sequence_name": "s", "features": [{}]},
        {"sequence_name": "t", "features": 3},
    ]
    with pytest.raises(ConfigError) as raised:
        import_pipeline(TORCH_DSSM, fg={"features": unnamed})
    assert [fault.where for fault in raised.value.faults] == [f"fg.json, number {number}" for number in (1, 2, 3, 4)]
    with pytest.raises(ConfigError, match="expected a list of features, got None"):
        import_pipeline(TORCH_DSSM, fg={})
