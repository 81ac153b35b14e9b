"""Exports a day's training run as a configuration of EasyRec or TorchEasyRec, with notes on everything lost."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Template
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.config.features import HASH_RATIO, HashFunction
from dssm_assets.core.config.model import Loss, Model, Norm, Pooling, Sampler, Similarity
from dssm_assets.core.config.training import EmbeddingOptimiser, Precision, StepPlan, Training
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS
from dssm_assets.core.features.operators.sequence_feature import DELIMITER
from dssm_assets.core.features.operators.tokenize_feature import TokenizeFeature
from dssm_assets.core.features.spec import Feature, FgSpec
from dssm_assets.core.models.tower_spec import TowerSide
from dssm_assets.core.statistics.feature_rules import FeatureInfo
from dssm_assets.extras.easyrec.import_settings import EASYREC, LOSSES, SAMPLERS, TORCH
from dssm_assets.extras.easyrec.text_format import Word, write_text_format
from dssm_assets.steps.feature_config import towers_of
from dssm_assets.steps.workspace import Workspace

ENCODED_SEPARATOR: Final = "\x03"
"""Separates the values of a feature in the reference's encoded samples."""

_WRITTEN: Final = {
    "output_dim", "hidden_units", "norm", "dropout", "similarity", "temperature", "in_batch", "sampler", "num_sample", "num_hard_sample",
    "batch_size", "epochs", "learning_rate", "embedding_optimiser", "embedding_learning_rate", "weight_decay", "gradient_clip",
    "history_length", "poolings", "warmup_frac", "final_learning_rate_frac",
}  # fmt: skip
_ALSO_WRITTEN: Final = {TORCH: {"precision", "loss"}, EASYREC: {"loss", "learn_temperature", "learn_scale", "weight_average"}}


@dataclass(frozen=True)
class ExportSource:
    """The decisions of a day: training_config, and for each feature, in the order of fg.json, its decision or why it is left out."""

    spec: FgSpec
    infos: Mapping[str, FeatureInfo]
    dropped: Mapping[str, str]
    model: Model
    training: Training
    plan: StepPlan
    hash_function: HashFunction = HashFunction.MURMUR


def export_text(workspace: Workspace, ds: str, system: str) -> str:
    """Returns a day's training run as a configuration. Comments at its end name everything that is lost.

    Raises:
        PartitionMissingError: feature_config or training_config of the day is missing.
    """
    settings = towers_of(workspace, ds)
    rows = workspace.tables.read(workspace.need("feature_config", ds)).to_pylist()
    config = workspace.config
    given = {row[col.FEATURE]: row[col.FEATURE_INFO] for row in rows}
    source = ExportSource(
        workspace.fg_spec,
        infos={name: FeatureInfo.model_validate_json(info) for name, info in given.items() if info is not None},
        dropped={row[col.FEATURE]: row[col.MESSAGE] for row in rows if row[col.FEATURE_INFO] is None},
        model=settings.model,
        training=settings.training,
        plan=settings.plan,
        hash_function=config.features.hash_function,
    )
    text, notes = export_pipeline(source, system)
    head = f"# {system}: the training run of {config.name} for {ds}. Fill in the paths."
    return f"{head}\n{text}" + "".join(f"# not expressed: {' '.join(note.split())}\n" for note in notes)


def export_pipeline(source: ExportSource, system: str) -> tuple[str, list[str]]:
    """Returns the configuration in text format, and a sentence for everything that is lost."""
    features = [source.spec.feature(name) for name in source.infos]
    settings = {**source.model.model_dump(mode="json"), **source.training.model_dump(mode="json")}
    values = settings | _torch(source, features) if system == TORCH else settings | _easyrec(source, features)
    is_adam = source.training.embedding_optimiser is EmbeddingOptimiser.ADAM
    values |= {
        "embedding_optimizer": "adam_optimizer" if is_adam else "adagrad_optimizer",
        "negatives": write_text_format(_sampler(source, _names(features, TowerSide.ITEM)), "  ") or None,
        "use_bn": source.model.norm is Norm.BATCH,
        "use_ln": source.model.norm is Norm.LAYER,
    }
    template = importlib.resources.files("dssm_assets.extras.easyrec").joinpath("templates", f"{system}.config")
    lines = []
    for line in map(Template, template.read_text(encoding="utf-8").splitlines()):
        shown = {name: values[name] for name in line.get_identifiers()}
        if None not in shown.values():
            filled = {name: str(value).lower() if isinstance(value, bool) else value for name, value in shown.items()}
            lines.append(line.substitute(filled).rstrip("\n") + "\n")
    return "".join(lines), [*_feature_notes(source, system), *_setting_notes(source, system)]


def _torch(source: ExportSource, features: Sequence[Feature]) -> dict[str, Any]:
    model, sequences = source.model, dict[str, list[Feature]]()
    for feature in features:
        if feature.sequence is not None:
            sequences.setdefault(feature.sequence.sequence_name, []).append(feature)
    configs: list[dict[str, Any]] = [_torch_feature(source, feature) for feature in features if feature.sequence is None]
    for name, members in sequences.items():
        group = members[0].sequence
        fields = {
            "sequence_name": name,
            "sequence_length": (group.sequence_length if group else 0) or model.history_length,
            "sequence_delim": group.sequence_delim if group else DELIMITER,
            "features": [_torch_feature(source, feature) for feature in members],
        }
        configs.append({"sequence_feature": fields})
    groups = [{"group_name": name, "feature_names": [one.name for one in members]} for name, members in sequences.items()]
    encoders = [{"pooling_encoder": {"input": name, "pooling_type": "mean"}} for name in sequences]
    user = {"feature_names": _names(features, TowerSide.USER), "sequence_groups": groups, "sequence_encoders": encoders}
    return {
        "features": write_text_format({"feature_configs": configs}),
        "user": write_text_format(user, "    "),
        "item": write_text_format({"feature_names": _names(features, TowerSide.ITEM)}, "    "),
        "mixed_precision": "BF16" if source.training.precision is Precision.BFLOAT16 else None,
        "rates": [model.dropout] * len(model.hidden_units),
        "in_batch_alone": model.in_batch and not model.num_sample,
    }


_NOT_DEFINED: Final = {
    "feature_name", "feature_type", "embedding_name", "embedding_dim", "boundaries", "group", "value_type", "need_prefix",
    "default_bucketize_value", "match_type", "output_type", *VOCABULARY_KEYS,
}  # fmt: skip
"""Keys of a definition to leave out, because the feature's table has them or the other system does not need them."""
_LACKED: Final = {
    "match_feature": {"combiner"},
    "overlap_feature": {"default_value"},
    "expr_feature": {"normalizer"},
    "kv_dot_product": {"kv_delimiter"},
    "sequence_id_feature": {"oldest_first"},
    "sequence_raw_feature": {"oldest_first"},
}
"""Feature type -> keys with an effect here that TorchEasyRec lacks."""


def _torch_feature(source: ExportSource, feature: Feature) -> dict[str, Any]:
    kind, table = feature.operator.feature_type, _table(source, source.infos[feature.name])
    left_out = _NOT_DEFINED | _LACKED.get(kind, set()) | ({"combiner"} if kind != "lookup_feature" else set())
    if isinstance(feature.operator, TokenizeFeature):  # its tokenizer is its vocabulary
        left_out -= {"vocab_file"}
        table = {key: table[key] for key in ("embedding_name", "embedding_dim")}
    given = feature.operator.model_dump(exclude_unset=True, mode="json")
    fields: dict[str, Any] = {
        key: str(value) if key == "default_value" else value for key, value in given.items() if key not in left_out
    }
    if options := (fields.get("text_normalizer") or {}).get("norm_options"):
        fields["text_normalizer"]["norm_options"] = [Word(option) for option in options]
    return {kind: {"feature_name": feature.operator.feature_name, **fields, **table}}


def _table(source: ExportSource, info: FeatureInfo) -> dict[str, Any]:
    words = info.vocab_dict
    return {
        "embedding_name": info.embedding_name,
        "embedding_dim": info.embedding_dim,
        "boundaries": info.boundary,
        "hash_bucket_size": info.hash_bucket_size if info.vocab_size is None else max(1, info.vocab_size * HASH_RATIO),
        "vocab_dict": None if words is None else [{"key": key, "value": value} for key, value in words.items()],
        "num_buckets": info.num_buckets,
        "vocab_list": info.vocab_list,
        "default_bucketize_value": info.default_bucketize_value,
    }


def _easyrec(source: ExportSource, features: Sequence[Feature]) -> dict[str, Any]:
    model = source.model
    layers = [*model.hidden_units, model.output_dim]
    user = [*_names(features, TowerSide.USER), *(feature.name for feature in features if feature.sequence is not None)]
    inputs = [{"input_name": feature.name, "input_type": Word("STRING")} for feature in features]
    return {
        "features": write_text_format({"feature_configs": [_easyrec_feature(source, feature) for feature in features]}),
        "inputs": write_text_format({"input_fields": inputs}, "  "),
        "user": write_text_format({"feature_names": user}, "    "),
        "item": write_text_format({"feature_names": _names(features, TowerSide.ITEM)}, "    "),
        "has_average": source.training.weight_average > 0,
        "weight_average": source.training.weight_average or None,
        "num_steps": source.plan.num_steps,
        "layers": layers,
        "rates": [model.dropout] * len(layers) if model.dropout else None,
        "is_scaled": model.learn_temperature or model.learn_scale,
        "temperature_of_cosine": model.temperature if model.similarity is Similarity.COSINE else None,
        "ignores_batch": not model.in_batch,
        "loss_type": next((name for name, loss in LOSSES.items() if loss == model.loss), "SOFTMAX_CROSS_ENTROPY"),
    }


def _easyrec_feature(source: ExportSource, feature: Feature) -> dict[str, Any]:
    """Returns the definition of an encoded feature, that is, of a column of the feature generator's output."""
    info = source.infos[feature.name]
    is_number, fields, kind = feature.kind is Kind.NUMERIC, dict[str, Any](), "RawFeature"
    if feature.sequence is not None:
        kind, length = "SequenceFeature", info.sequence_length or source.model.history_length
        fields = {"sub_feature_type": Word("RawFeature") if is_number else None, "separator": ";", "max_seq_len": length}
    elif feature.is_multi:
        kind = "RawFeature" if is_number else "TagFeature"
        fields = {"separator": ENCODED_SEPARATOR, "kv_separator": ":" if info.is_weighted else None, "combiner": "mean"}
    elif not is_number:
        kind = "IdFeature"
    table = _table(source, info) | {"vocab_dict": None, "default_bucketize_value": None}
    if info.vocab_dict is not None:
        table["hash_bucket_size"] = info.num_embeddings * HASH_RATIO
    return {"feature_name": feature.name, "input_names": feature.name, "feature_type": Word(kind), **fields, **table}


def _sampler(source: ExportSource, item_features: Sequence[str]) -> dict[str, Any]:
    model = source.model
    if model.sampler is Sampler.ALL or not model.num_sample:
        return {}
    name = next((name for name, sampler in SAMPLERS.items() if sampler == model.sampler), "negative_sampler")
    fields: dict[str, Any] = {"input_path": "items.txt"}
    if name != "negative_sampler":
        fields = {"user_input_path": "users.txt", "item_input_path": "items.txt", "user_id_field": col.USER_ID}
    if name.endswith("_v2"):
        fields["pos_edge_input_path"] = "positive_edges.txt"
    if name.startswith("hard"):
        fields |= {"hard_neg_edge_input_path": "hard_edges.txt", "num_hard_sample": model.num_hard_sample}
    counts = {"num_sample": model.num_sample, "num_eval_sample": model.num_sample}
    return {name: {**fields, **counts, "attr_fields": list(item_features), "item_id_field": col.ITEM_ID, "attr_delimiter": ":"}}


def _names(features: Iterable[Feature], tower: TowerSide) -> list[str]:
    rows = [feature for feature in features if feature.sequence is None]
    return [feature.name for feature in rows if (str(feature.side) == TowerSide.ITEM) == (tower is TowerSide.ITEM)]


def _feature_notes(source: ExportSource, system: str) -> list[str]:
    infos, hashes = source.infos, source.hash_function
    notes = [f"feature {name} is left out: {text}" for name, text in source.dropped.items()]
    counted = {info.embedding_name: info.vocab_size for info in infos.values() if info.vocab_size is not None}
    if counted:
        sizes = ", ".join(f"{name} {size:,}" for name, size in counted.items())
        notes.append(
            f"vocabularies are exact here and their texts are not stored, so hash_bucket_size is {HASH_RATIO} times their size: {sizes}"
        )
    if system == EASYREC:
        hashed = [name for name, info in infos.items() if info.vocab_dict is not None]
        notes += [f"feature {name}: the buckets of its vocab_dict, so it has hash buckets" for name in hashed]
    else:
        for feature in map(source.spec.feature, infos):
            lacked = _LACKED.get(feature.operator.feature_type, set()) & feature.operator.model_fields_set
            notes += [f"feature {feature.name}: TorchEasyRec has no {key}" for key in sorted(lacked)]
    theirs, ours = ("FarmHash", HashFunction.FARM) if system == EASYREC else ("MurmurHash64A", HashFunction.MURMUR)
    if hashes is not ours:
        notes.append(f"{system} hashes by {theirs}, features.hash_function is {hashes}: buckets differ")
    numbers = [name for name, info in infos.items() if info.boundary is not None]
    if numbers:
        notes.append(f"numbers that are missing share no bin here, and have default_value there: {', '.join(numbers)}")
    if any(info.sequence_name for info in infos.values()):
        notes.append("the history is computed from the log here; there it is a column of the samples, newest event first")
    return notes


def _setting_notes(source: ExportSource, system: str) -> list[str]:
    model, training, is_torch, notes = source.model, source.training, system == TORCH, []
    reasons = _reasons(model, training, is_torch)
    for section, values in (("model", model), ("training", training)):
        shown = values.model_dump(mode="json") | values.model_dump(mode="json", exclude_defaults=True)
        for key, field in type(values).model_fields.items():
            is_set = getattr(values, key) != field.get_default(call_default_factory=True)
            if key in reasons:
                notes.append(f"{section}.{key} = {shown[key]}: {reasons[key]}")
            elif key not in _WRITTEN | _ALSO_WRITTEN[system] and (is_set or key == "logq"):  # neither system has logq
                notes.append(f"{section}.{key} = {shown[key]}")
    return notes


def _reasons(model: Model, training: Training, is_torch: bool) -> dict[str, str]:
    constant = "the learning rate is constant there"
    reasons = {"warmup_frac": constant} if training.warmup_frac else {}
    if training.final_learning_rate_frac != 1:
        reasons["final_learning_rate_frac"] = constant
    if any(pooling != Pooling(length=pooling.length) for pooling in model.poolings):
        reasons["poolings"] = "the history is pooled by its mean there"
    if (model.num_sample or model.sampler is Sampler.ALL) and model.sampler not in SAMPLERS.values():
        reasons["sampler"] = "their samplers follow the weights of items.txt"
    if is_torch and model.in_batch and model.num_sample:
        reasons["in_batch"] = "TorchEasyRec has either the batch's items or sampled ones, here the sampled ones"
    if is_torch and training.precision is Precision.AUTO:
        reasons["precision"] = "float32 there; BF16 if you set mixed_precision"
    if is_torch and model.loss != Loss.SOFTMAX:
        reasons["loss"] = "TorchEasyRec has softmax_cross_entropy alone"
    if not is_torch and not isinstance(model.loss, Loss):
        reasons["loss"] = "SOFTMAX_CROSS_ENTROPY in its place"
    if not is_torch and model.norm is Norm.LAYER:
        reasons["norm"] = "EasyRec has batch normalisation or none, here none"
    if not is_torch and model.similarity is Similarity.INNER_PRODUCT and model.temperature != 1:
        reasons["temperature"] = "EasyRec has one for COSINE alone"
    return reasons
