"""Towers, similarity, loss, negatives and training of EasyRec and TorchEasyRec as keys of the sections model and training.

Belongs here: which field becomes which key, defaults that differ, and why a field has no counterpart. Does not belong here: features
(`import_features.py`), bounds of the keys (`core/config`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dssm_assets.core.config.model import Loss, Norm, PoolingKind, Sampler, Similarity
from dssm_assets.core.config.training import EmbeddingOptimiser, Precision
from dssm_assets.core.errors import Fault
from dssm_assets.extras.easyrec.field_reader import FieldReader, ImportRecord

EASYREC: Final = "EasyRec"
TORCH: Final = "TorchEasyRec"

SETTING_REASONS: Final = {
    "train_input_path": "the source tables are named in `tables`",
    "eval_input_path": "a day is evaluated by its own events",
    "item_input_path": "item vectors are computed from item_features_fg",
    "model_dir": "models are partitions of dssm_model in storage.root",
    "fg_json_path": "features.fg_path; pass the file as the second argument",
    "eval_config": "evaluation.k and evaluation.segments; ranks are among all items, not among a batch's negatives",
    "metrics": "evaluation.k and evaluation.segments; ranks are among all items, not among a batch's negatives",
    "train_metrics": "evaluation.k and evaluation.segments; ranks are among all items, not among a batch's negatives",
    "export_config": "serving_bundle has both towers as ONNX; the section serving has its settings",
    "data_config": "samples are made from the source tables",
    "input_fields": "the columns of samples follow from tables and fg.json",
    "label_fields": "events.positive names the events that are trained on",
    "sample_weight": "model.event_weights and model.recency_half_life_days weight samples",
    "sample_weight_fields": "model.event_weights and model.recency_half_life_days weight samples",
    "num_eval_sample": "evaluation ranks all items exactly",
    "eval_batch_size": "evaluation ranks all items exactly",
    "attr_fields": "sampled items have all features of the item tower",
    "attr_delimiter": "sampled items have all features of the item tower",
    "field_delimiter": "sampled items have all features of the item tower",
    "item_id_delim": "a sample has one item",
    "input_path": "the asset negative_items has the items and their weights (section negative_items)",
    "user_input_path": "known positives come from positive_sample",
    "pos_edge_input_path": "known positives come from positive_sample",
    "hard_neg_edge_input_path": "hard negatives are the events of events.exposure without interaction",
    "shuffle": "samples are shuffled by the seed",
    "shuffle_buffer_size": "samples are shuffled by the seed",
    "sample_mask_prob": "model.embedding_dropout and model.cold_item_frac are the nearest",
    "negative_sample_mask_prob": "model.embedding_dropout and model.cold_item_frac are the nearest",
    "drop_remainder": "the last batch of an epoch is smaller",
    "fg_mode": "features are always generated here",
    "fg_encoded": "features are always generated here",
    "save_checkpoints_steps": "training.checkpoint_minutes",
    "save_checkpoints_secs": "training.checkpoint_minutes",
    "save_checkpoints_epochs": "training.checkpoint_minutes",
    "keep_checkpoint_max": "a finished fit keeps its model alone",
    "log_step_count_steps": "the report of dssm_model shows the fit",
    "save_summary_steps": "the report of dssm_model shows the fit",
    "use_tensorboard": "the report of dssm_model shows the fit",
    "tensorboard_summaries": "the report of dssm_model shows the fit",
    "fine_tune_checkpoint": "training.warm_start begins with the last model before the day",
    "train_distribute": "training.num_processes",
    "num_gpus_per_worker": "training.num_processes",
    "sync_replicas": "processes share every batch (training.num_processes)",
    "l2_regularization": "training.weight_decay is decoupled from the loss, so its value means something else",
    "embedding_regularization": "rows of embeddings have no penalty",
    "variational_dropout": "the asset feature_importance measures features",
    "kd": "there is no distillation",
    "grad_scaler": "bfloat16 needs none",
    "gradient_accumulation_steps": "set training.batch_size to the product",
    "param_optimizers": "one optimiser for all dense layers",
    "capsule_config": "interests are attention poolings, without dynamic routing",
    "pre_capsule_dnn": "interests are attention poolings of the embeddings themselves",
    "hist_seq_mlp": "interests are attention poolings of the embeddings themselves",
    "user_dnn": "model.hidden_units are the layers of both towers; each interest passes the user tower together with the user's features",
    "user_mlp": "model.hidden_units are the layers of both towers; each interest passes the user tower together with the user's features",
    "concat_dnn": "model.hidden_units are the layers of both towers; each interest passes the user tower together with the user's features",
    "concat_mlp": "model.hidden_units are the layers of both towers; each interest passes the user tower together with the user's features",
    "simi_pow": "a sample trains the interest that is nearest to its item",
    "time_id_fea": "a pooling of kind sequence knows the time between events",
    "num_class": "a pair is positive or negative",
    "bias": "layers have a bias",
    "activation": "layers have ReLU",
    "beta1": "0.9 and 0.999, as torch's defaults",
    "beta2": "0.9 and 0.999, as torch's defaults",
    "initial_accumulator_value": "moments start at 0",
    "gradient_clipping": "rows of embeddings are not clipped",
    "max_gradient": "rows of embeddings are not clipped",
    "burnin_learning_rate": "the learning rate rises from near 0",
    "warmup_learning_rate": "the learning rate rises from near 0",
    "hold_base_rate_steps": "the learning rate falls as soon as it has risen",
    "staircase": "the learning rate falls smoothly",
}
"""Field -> why it has no counterpart, or what replaces it; of nested fields the innermost one named here counts."""

_SAMPLERS: Final = {
    "negative_sampler": Sampler.WEIGHTED,
    "negative_sampler_v2": Sampler.V2,
    "hard_negative_sampler": Sampler.HARD,
    "hard_negative_sampler_v2": Sampler.HARD_V2,
}
_LOSSES: Final = {
    "SOFTMAX_CROSS_ENTROPY": Loss.SOFTMAX,
    "CLASSIFICATION": Loss.SIGMOID,
    "CROSS_ENTROPY_LOSS": Loss.SIGMOID,
    "L2_LOSS": Loss.L2,
}
_RELU: Final = ("", "nn.ReLU", "tf.nn.relu", "relu", "ReLU")
_MAX_EPOCHS: Final = 1000
_POOLINGS: Final = {"pooling_encoder": PoolingKind.MEAN, "simple_attention": PoolingKind.ATTENTION}


def read_sampler(data: FieldReader, record: ImportRecord, *, has_exposure: bool) -> FieldReader:
    """Records sampler, num_sample and num_hard_sample; returns the sampler's message, empty if there is none."""
    kind = data.choice(tuple(_SAMPLERS))
    if kind is None:
        record.put("model.num_sample", 0, f"no sampler in {data.path}")
        return data.message("negative_sampler")
    message, sampler = data.message(kind), _SAMPLERS[kind]
    if sampler in (Sampler.HARD, Sampler.HARD_V2):
        record.put("model.num_hard_sample", message.integer("num_hard_sample", 0), message.origin("num_hard_sample"))
        if not has_exposure:
            plain = Sampler.WEIGHTED if sampler is Sampler.HARD else Sampler.V2
            record.without_counterpart[f"{message.path}"] = (
                f"hard negatives need events.exposure, the event that means shown: name it and set model.sampler to {sampler}; "
                f"until then it is {plain}"
            )
            sampler = plain
    record.put("model.sampler", str(sampler), message.path)
    record.put("model.num_sample", message.integer("num_sample", 0), message.origin("num_sample"))
    record.tell(
        "Sampled negatives: drawn with the weights of negative_items (positives in the window + smoothing, to the power alpha), not "
        "those of a table; an item of the batch, or with v2 a known positive of the user, is masked for its row and stays for the others."
    )
    return message


def read_dssm(model: FieldReader, dssm: FieldReader, record: ImportRecord) -> None:
    """Records the towers, the similarity, the loss and the in-batch negatives of a DSSM."""
    inner = "mlp" if record.system == TORCH else "dnn"
    user, item = (dssm.message(f"{side}_tower").message(inner) for side in ("user", "item"))
    _read_layers(user, item, dssm, record)
    _read_similarity(model, dssm, record, Similarity.INNER_PRODUCT if record.system == TORCH else Similarity.COSINE)
    _read_in_batch(dssm, record)


def read_mind(model: FieldReader, mind: FieldReader, record: ImportRecord) -> None:
    """Records the interests, the layers and the similarity of a MIND."""
    if record.system == TORCH:
        item, capsule = mind.message("item_tower").message("mlp"), mind.message("user_tower").message("capsule_config")
    else:
        item, capsule = mind.message("item_dnn"), mind.message("capsule_config")
    _read_layers(item, item, mind, record)
    record.put("model.num_interests", capsule.integer("max_k", 5), capsule.origin("max_k"))
    length = capsule.integer("max_seq_len", 50)
    record.put("model.poolings", [{"kind": "attention", "length": length}], capsule.origin("max_seq_len"))
    record.put("model.history_length", length, capsule.origin("max_seq_len"))
    record.tell(
        "MIND: interests are attention poolings of the history in place of capsules with dynamic routing, their number is the same for "
        "every user, and their sub-features stand side by side (CONCAT)."
    )
    if mind.text("user_seq_combine", "SUM") == "SUM" and record.system == EASYREC:
        mind.without_counterpart("user_seq_combine", "sub-features of the history stand side by side, as CONCAT")
    _read_similarity(model, mind, record, Similarity.COSINE)
    _read_in_batch(mind, record)


def read_history(model: FieldReader, length: int, record: ImportRecord) -> None:
    """Records how the history is pooled, unless the model did."""
    if "model.poolings" in record.settings and length:
        return
    record.put("model.history_length", length, "length of the sequence" if length else "no sequence")
    encoders = [encoder for group in model.messages("feature_groups") for encoder in group.messages("sequence_encoders")]
    poolings, inputs = [], []
    for encoder in encoders:
        kind = encoder.only_message()
        inner = encoder.message(kind) if kind else encoder
        inputs.append(inner.text("input"))
        if kind not in _POOLINGS:
            encoder.record.without_counterpart[inner.path] = "the history is pooled by its mean; see model.poolings for others"
        poolings.append({"kind": str(_POOLINGS.get(kind, PoolingKind.MEAN)), "length": length})
        if kind == "pooling_encoder" and inner.text("pooling_type", "mean") != "mean":
            inner.without_counterpart("pooling_type", "the mean, which is the sum divided by the number of events")
    distinct = [pooling for number, pooling in enumerate(poolings) if pooling not in poolings[:number]]
    if length and distinct:
        record.put("model.poolings", distinct, f"sequence_encoders of {', '.join(inputs)}")


def _read_layers(user: FieldReader, item: FieldReader, model: FieldReader, record: ImportRecord) -> None:
    """Records hidden_units, output_dim, norm and dropout, which both towers share here."""
    widths, others = user.integers("hidden_units"), item.integers("hidden_units")
    if record.system == EASYREC:
        for reader, given in ((user, widths), (item, others)):
            if not given:
                place = f"{record.where}, {reader.path}.hidden_units"
                record.faults.append(Fault(place, "the width of the vectors as the last one", "none", "add hidden_units"))
        if widths and others and widths[-1] != others[-1]:
            place = f"{record.where}, hidden_units"
            got = f"{widths[-1]} and {others[-1]}"
            record.faults.append(Fault(place, "one width of user and item vectors", got, "make the last widths equal"))
        output, output_origin = (widths or [64])[-1], f"the last of {user.origin('hidden_units')}"
        widths, others = widths[:-1], others[:-1]
    else:
        output, output_origin = model.integer("output_dim", 64), model.origin("output_dim")
    record.put("model.output_dim", output, output_origin)
    record.put("model.hidden_units", widths, user.origin("hidden_units"))
    if others != widths:
        reason = "both towers have the hidden layers of the user tower"
        record.without_counterpart[f"{item.path}.hidden_units: {others}"] = reason
    norms = [_norm(reader, record.system) for reader in (user, item)]
    record.put("model.norm", str(norms[0]), user.origin("use_ln" if user.has("use_ln") else "use_bn"))
    rates = [reader.numbers("dropout_ratio") or [0.0] for reader in (user, item)]
    record.put("model.dropout", rates[0][0], user.origin("dropout_ratio"))
    if len({*rates[0], *rates[1]}) > 1:
        record.without_counterpart[f"dropout_ratio: {rates[0]} and {rates[1]}"] = (
            "one fraction for all layers, the user tower's first"
        )
    if norms[0] != norms[1]:
        record.without_counterpart[f"{item.path}: normalisation {norms[1]}"] = "both towers have that of the user tower"
    for reader in dict.fromkeys((user, item)):
        if reader.text("activation") not in _RELU:
            reader.without_counterpart("activation", "layers have ReLU")


def _norm(reader: FieldReader, system: str) -> Norm:
    is_batch, is_layer = reader.flag("use_bn", system == EASYREC), reader.flag("use_ln", False)
    return Norm.LAYER if is_layer else Norm.BATCH if is_batch else Norm.NONE


def _read_similarity(model: FieldReader, inner: FieldReader, record: ImportRecord, default: Similarity) -> None:
    """Records similarity, temperature, loss and the learned scale."""
    name = "similarity" if record.system == TORCH else "simi_func"
    given = inner.text(name, default)
    if given not in set(Similarity):
        record.without_counterpart[f"{inner.path}.{name}: {given}"] = f"it was never implemented; {default} in its place"
    similarity = Similarity(given) if given in set(Similarity) else default
    record.put("model.similarity", str(similarity), inner.origin(name))
    loss = _read_loss(model, record)
    is_used = record.system == TORCH or similarity is Similarity.COSINE
    temperature = inner.number("temperature", 1.0)
    record.put("model.temperature", temperature if is_used else 1.0, inner.origin("temperature"))
    if not is_used:
        inner.without_counterpart("temperature", "EasyRec uses it for COSINE alone, so it is 1 here")
    if record.system == EASYREC:
        is_scaled = inner.flag("scale_simi", True)
        record.put("model.learn_temperature", is_scaled and loss is Loss.SOFTMAX, inner.origin("scale_simi"))
        record.put("model.learn_scale", is_scaled and loss is not Loss.SOFTMAX, inner.origin("scale_simi"))
        if is_scaled and loss is Loss.SOFTMAX:
            record.tell("scale_simi: the learned factor is model.learn_temperature; its offset cancels in a softmax.")
        record.tell("EasyRec's additional loss mean(relu(-similarity of the pair)) is not there.")


def _read_loss(model: FieldReader, record: ImportRecord) -> Loss:
    losses = model.messages("losses")
    if record.system == TORCH:
        names = [name for loss in losses for name in loss.names]
        for loss in losses:
            loss.message("softmax_cross_entropy")
        if names not in ([], ["softmax_cross_entropy"]):
            record.without_counterpart[f"{model.path}.losses: {', '.join(names)}"] = (
                "the loss is softmax_cross_entropy, softmax here"
            )
        record.put("model.loss", str(Loss.SOFTMAX), f"{model.path}.losses")
        found = Loss.SOFTMAX
    else:
        reader = losses[0] if losses else model
        for extra in losses[1:]:
            record.without_counterpart[f"{extra.path}.loss_type: {extra.text('loss_type')}"] = "there is one loss, the first"
        name = reader.text("loss_type", "CLASSIFICATION")
        if name not in _LOSSES:
            record.without_counterpart[f"{reader.path}.loss_type: {name}"] = (
                "softmax in its place; a loss of your own can be registered"
            )
        found = _LOSSES.get(name, Loss.SOFTMAX)
        record.put("model.loss", str(found), reader.origin("loss_type"))
    if found is not Loss.L2:
        record.tell(
            "logQ: logits are corrected by how often an item is drawn as a negative (model.logq: 1), which neither EasyRec nor "
            "TorchEasyRec does. 0 switches it off; popular items then rank lower."
        )
    if found is not Loss.SOFTMAX:
        record.tell(
            f"Loss {found}: negatives are the batch's other items and sampled ones, not the samples with label 0; positives are the "
            "events of events.positive."
        )
    return found


def _read_in_batch(inner: FieldReader, record: ImportRecord) -> None:
    """Records whether the batch's other items are negatives, and which are masked."""
    if record.system == TORCH:
        in_batch = inner.flag("in_batch_negative", False)
        origin = inner.origin("in_batch_negative")
        if in_batch and record.settings["model.num_sample"].value:
            record.put("model.num_sample", 0, f"{origin}: TorchEasyRec leaves out sampled negatives then")
            record.tell(
                "in_batch_negative leaves out the sampled negatives, as in TorchEasyRec; model.num_sample above 0 adds them here."
            )
    else:
        in_batch, origin = not inner.flag("ignore_in_batch_neg_sam", False), inner.origin("ignore_in_batch_neg_sam")
        if inner.texts("hist_seq_masks"):
            record.put("model.user_positive_mask", True, inner.origin("hist_seq_masks"))
            record.tell("hist_seq_masks: every known positive of the user is masked, not only items of the named sequences.")
    if not in_batch and not record.settings["model.num_sample"].value:
        in_batch = True
        record.tell("Without a sampler the batch's other items are the negatives (model.in_batch).")
    record.put("model.in_batch", in_batch, origin)
    record.put("model.collision_mask", True, "see import_report.md")
    record.put("model.logq", 1.0, "see import_report.md")
    record.tell(
        "model.collision_mask: a negative that is the row's own item is left out, sampled ones too"
        + (
            "; TorchEasyRec has no such mask."
            if record.system == TORCH
            else "; EasyRec leaves out those of the batch alone, if item_id is named."
        )
    )


def read_training(train: FieldReader, data: FieldReader, record: ImportRecord) -> None:
    """Records batch size, epochs, optimisers, learning rates, clipping and precision."""
    record.put(
        "training.batch_size", data.integer("batch_size", 1024 if record.system == TORCH else 32), data.origin("batch_size")
    )
    holder = train if record.system == TORCH else data
    epochs = holder.integer("num_epochs", 0)
    if 1 <= epochs <= _MAX_EPOCHS:
        record.put("training.epochs", epochs, holder.origin("num_epochs"))
    elif epochs:
        holder.without_counterpart("num_epochs", f"at most {_MAX_EPOCHS}; training.epochs keeps its default")
    steps = train.integer("num_steps", 0)
    if steps:
        train.without_counterpart(
            "num_steps", "steps follow from epochs: epochs x positives of the window / batch_size; set training.epochs"
        )
    if record.system == TORCH:
        dense, sparse = train.message("dense_optimizer"), train.message("sparse_optimizer")
        _read_torch_optimisers(dense, sparse, steps, record)
        clipping = train.message("grad_clipping")
        if clipping.text("clipping_type", "none") == "norm":
            record.put("training.gradient_clip", clipping.number("max_gradient", 1.0), clipping.origin("max_gradient"))
        if (precision := train.text("mixed_precision")) == "BF16":
            record.put("training.precision", str(Precision.BFLOAT16), train.origin("mixed_precision"))
        elif precision:
            train.without_counterpart("mixed_precision", "float32 or bfloat16")
    else:
        _read_easyrec_optimisers(train.messages("optimizer_config"), steps, record)
        if (norm := train.number("gradient_clipping_by_norm", 0.0)) > 0:
            record.put("training.gradient_clip", norm, train.origin("gradient_clipping_by_norm"))
    record.tell(
        "The learning rate rises over training.warmup_frac of the steps and then falls linearly to "
        "training.final_learning_rate_frac; other schedules are matched at both ends."
    )


def _read_torch_optimisers(dense: FieldReader, sparse: FieldReader, steps: int, record: ImportRecord) -> None:
    for reader, key in ((dense, "learning_rate"), (sparse, "embedding_learning_rate")):
        kind = reader.only_message("_optimizer")
        inner = reader.message(kind) if kind else reader
        record.put(f"training.{key}", inner.number("lr", 0.002), inner.origin("lr"))
        if reader is dense:
            _put_decay(inner, kind, record)
        else:
            _put_embedding_optimiser(kind, inner.path, record)
    _read_schedule(dense, steps, record, start=None)
    if (given := sparse.choice(("exponential_decay_learning_rate", "manual_step_learning_rate"))) is not None:
        sparse.without_counterpart(given, "embeddings have the schedule of the dense layers")
    sparse.message("constant_learning_rate")


def _read_easyrec_optimisers(optimisers: Sequence[FieldReader], steps: int, record: ImportRecord) -> None:
    """Records the optimisers: with two, the first one is that of the embeddings."""
    if not optimisers:
        return
    if len(optimisers) > 2:
        record.without_counterpart[f"{optimisers[1].path}: {len(optimisers)} optimisers"] = (
            "the first is that of embeddings, the last of layers"
        )
    dense, sparse = optimisers[-1], optimisers[0]
    found = []
    for reader in (dense, sparse):
        kind = reader.only_message("_optimizer")
        inner = reader.message(kind) if kind else reader
        rates = inner.message("learning_rate")
        schedule = rates.only_message()
        rate = rates.message(schedule) if schedule else rates
        name = next(
            (key for key in ("initial_learning_rate", "learning_rate_base", "learning_rate") if rate.has(key)), "learning_rate"
        )
        found.append((kind, inner, rates, rate.number(name, 0.002), rate.origin(name)))
    kind, inner, rates, value, origin = found[0]
    record.put("training.learning_rate", value, origin)
    _put_decay(inner, kind, record)
    _read_schedule(rates, steps, record, start=value)
    factor = sparse.number("embedding_learning_rate_multiplier", 1.0)
    record.put(
        "training.embedding_learning_rate", found[1][3] * factor, found[1][4] + (f", times {factor:g}" if factor != 1.0 else "")
    )
    _put_embedding_optimiser(found[1][0], found[1][1].path, record)
    if dense.flag("use_moving_average", False):
        record.put(
            "training.weight_average", dense.number("moving_average_decay", 0.9999), dense.origin("moving_average_decay")
        )
    else:
        dense.number("moving_average_decay", 0.9999)


def _put_decay(inner: FieldReader, kind: str, record: ImportRecord) -> None:
    if kind in ("adamw_optimizer", "adam_asyncw_optimizer"):
        record.put(
            "training.weight_decay",
            inner.number("weight_decay", 0.0 if record.system == TORCH else 1e-6),
            inner.origin("weight_decay"),
        )
    elif kind not in ("adam_optimizer", "adam_async_optimizer", "lazy_adam_optimizer", ""):
        record.without_counterpart[f"{inner.path} (of dense layers)"] = (
            "dense layers have AdamW; with weight_decay 0 it is Adam"
        )


def _put_embedding_optimiser(kind: str, path: str, record: ImportRecord) -> None:
    is_adam, is_adagrad = "adam" in kind, "adagrad" in kind
    chosen = EmbeddingOptimiser.ADAM if is_adam else EmbeddingOptimiser.ADAGRAD
    record.put("training.embedding_optimiser", str(chosen), path)
    if not is_adam and not is_adagrad:
        record.without_counterpart[f"{path} (of embeddings)"] = (
            f"rows of embeddings have adagrad or adam; {chosen} in its place"
        )
    else:
        record.tell("Moments of embeddings: one second moment per row, not per value.")


def _read_schedule(rates: FieldReader, steps: int, record: ImportRecord, start: float | None) -> None:
    """Records warm-up and the last learning rate, as fractions of the steps and of the learning rate."""
    kind = rates.only_message("_learning_rate") or "constant_learning_rate"
    schedule = rates.message(kind)
    first = start if start is not None else float(record.settings["training.learning_rate"].value)
    if kind == "constant_learning_rate":
        record.put("training.warmup_frac", 0.0, schedule.path)
        record.put("training.final_learning_rate_frac", 1.0, schedule.path)
        return
    if kind == "exponential_decay_learning_rate":
        least = schedule.number("min_learning_rate", 0.0)
        size = schedule.integer("decay_size", schedule.integer("decay_steps", 0))
        factor = schedule.number("decay_factor", 0.95)
        warmup = schedule.integer("warmup_size", schedule.integer("burnin_steps", 0))
        least_frac = least / first if first > 0 else 0.0  # a rate of 0 is refused with the section
        if steps and size > 0 and 0 < factor <= 1 and not schedule.flag("by_epoch", False):
            last = max(factor ** (steps / size), least_frac)
            record.put(
                "training.final_learning_rate_frac",
                round(min(1.0, last), 6),
                f"{schedule.path} after {steps} steps, at least {least:g}",
            )
        else:
            record.put(
                "training.final_learning_rate_frac", round(min(1.0, least_frac), 6), schedule.origin("min_learning_rate")
            )
            for name in ("decay_size", "decay_steps", "decay_factor", "by_epoch"):
                schedule.without_counterpart(name, "without num_steps the learning rate falls to min_learning_rate at the end")
        record.put("training.warmup_frac", round(min(0.5, warmup / steps), 6) if steps else 0.0, schedule.path)
        if warmup and not steps:
            record.without_counterpart[f"{schedule.path}: {warmup} steps of warm-up"] = (
                "a fraction of the steps: training.warmup_frac"
            )
    elif kind == "cosine_decay_learning_rate":
        total, warmup = schedule.integer("total_steps", 4_000_000), schedule.integer("warmup_steps", 10_000)
        record.put("training.warmup_frac", round(min(0.5, warmup / total), 6), schedule.origin("warmup_steps"))
        record.put("training.final_learning_rate_frac", 0.0, schedule.path)
    else:
        record.without_counterpart[schedule.path] = "training.warmup_frac and final_learning_rate_frac keep their defaults"
