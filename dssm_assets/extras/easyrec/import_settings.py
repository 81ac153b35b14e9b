"""Converts towers, similarity, loss, negatives and training of EasyRec and TorchEasyRec to the sections model and training."""

from __future__ import annotations

from typing import Final

from dssm_assets.core.config.model import Loss, Norm, PoolingKind, Sampler, Similarity
from dssm_assets.core.config.training import EmbeddingOptimiser, Precision
from dssm_assets.core.errors import Fault
from dssm_assets.extras.easyrec.field_reader import FieldReader, ImportRecord

EASYREC: Final = "EasyRec"
TORCH: Final = "TorchEasyRec"

SAMPLERS: Final = {
    "negative_sampler": Sampler.WEIGHTED,
    "negative_sampler_v2": Sampler.V2,
    "hard_negative_sampler": Sampler.HARD,
    "hard_negative_sampler_v2": Sampler.HARD_V2,
}
LOSSES: Final = {
    "SOFTMAX_CROSS_ENTROPY": Loss.SOFTMAX,
    "CLASSIFICATION": Loss.SIGMOID,
    "CROSS_ENTROPY_LOSS": Loss.SIGMOID,
    "L2_LOSS": Loss.L2,
}
_RELU: Final = ("", "nn.ReLU", "tf.nn.relu", "relu", "ReLU")
_MAX_EPOCHS: Final = 1000
_POOLINGS: Final = {"pooling_encoder": PoolingKind.MEAN, "simple_attention": PoolingKind.ATTENTION}


def read_sampler(data: FieldReader, record: ImportRecord, *, has_exposure: bool) -> FieldReader:
    """Records sampler, num_sample and num_hard_sample. Returns the sampler's message, empty if there is no sampler."""
    kind = data.choice(tuple(SAMPLERS))
    if kind is None:
        record.put("model.num_sample", 0, f"no sampler in {data.path}")
        return data.message("negative_sampler")
    message, sampler = data.message(kind), SAMPLERS[kind]
    if sampler in (Sampler.HARD, Sampler.HARD_V2):
        message.put("model.num_hard_sample", "num_hard_sample", 0)
        if not has_exposure:
            reason = f"hard negatives need the event that means shown, in events.exposure; then set model.sampler to {sampler}"
            record.without_counterpart[message.path] = reason
            sampler = Sampler.WEIGHTED if sampler is Sampler.HARD else Sampler.V2
    record.put("model.sampler", str(sampler), message.path)
    message.put("model.num_sample", "num_sample", 0)
    record.tell("Sampled negatives are drawn with the weights of negative_items, not of a table.")
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
    capsule.put("model.num_interests", "max_k", 5)
    capsule.put("model.history_length", "max_seq_len", 50)
    length = record.settings["model.history_length"]
    record.put("model.poolings", [{"kind": "attention", "length": length.value}], length.origin)
    record.tell("MIND: interests are attention poolings of the history, not capsules, and every user has as many.")
    if mind.get("user_seq_combine", "SUM") == "SUM" and record.system == EASYREC:
        mind.without_counterpart("user_seq_combine", "sub-features of the history stand side by side, as CONCAT")
    _read_similarity(model, mind, record, Similarity.COSINE)
    _read_in_batch(mind, record)


def read_history(model: FieldReader, length: int, record: ImportRecord) -> None:
    """Records the poolings of the history, unless the model's settings have done so already."""
    if "model.poolings" in record.settings and length:
        return
    record.put("model.history_length", length, "length of the sequence" if length else "no sequence")
    poolings, inputs = [], []
    for encoder in (encoder for group in model.messages("feature_groups") for encoder in group.messages("sequence_encoders")):
        kind, inner = encoder.only_message()
        inputs.append(inner.get("input", ""))
        if kind not in _POOLINGS:
            record.without_counterpart[inner.path] = "the history is pooled by its mean; see model.poolings for others"
        elif kind == "pooling_encoder" and inner.get("pooling_type", "mean") != "mean":
            inner.without_counterpart("pooling_type", "the mean, which is the sum divided by the number of events")
        pooling = {"kind": str(_POOLINGS.get(kind, PoolingKind.MEAN)), "length": length}
        poolings += [pooling] if pooling not in poolings else []
    if length and poolings:
        record.put("model.poolings", poolings, f"sequence_encoders of {', '.join(inputs)}")


def _read_layers(user: FieldReader, item: FieldReader, model: FieldReader, record: ImportRecord) -> None:
    widths, others = user.all("hidden_units", int), item.all("hidden_units", int)
    if record.system == EASYREC:
        if not widths or not others or widths[-1] != others[-1]:
            where, expected = f"{record.where}, hidden_units", "layers of both towers that end in one width"
            record.faults.append(Fault(where, expected, f"{widths} and {others}", "make the last widths equal"))
        record.put("model.output_dim", (widths or [64])[-1], f"the last of {user.origin('hidden_units')}")
        widths, others = widths[:-1], others[:-1]
    else:
        model.put("model.output_dim", "output_dim", 64)
    record.put("model.hidden_units", widths, user.origin("hidden_units"))
    rates = [reader.all("dropout_ratio", float) or [0.0] for reader in (user, item)]
    record.put("model.dropout", rates[0][0], user.origin("dropout_ratio"))
    norms = []
    for reader in (user, item):
        is_batch, is_layer = reader.get("use_bn", record.system == EASYREC), reader.get("use_ln", False)
        norms.append(str(Norm.LAYER if is_layer else Norm.BATCH if is_batch else Norm.NONE))
        if reader.get("activation", "") not in _RELU:
            reader.without_counterpart("activation")
    record.put("model.norm", norms[0], user.origin("use_ln" if "use_ln" in user.names else "use_bn"))
    differing = {
        f"{item.path}.hidden_units: {others}": others != widths,
        f"dropout_ratio: {rates[0]} and {rates[1]}": len({*rates[0], *rates[1]}) > 1,
        f"{item.path}: normalisation {norms[1]}": norms[0] != norms[1],
    }
    reason = "all layers of both towers have what the user tower's first layer has"
    record.without_counterpart |= {given: reason for given, is_differing in differing.items() if is_differing}


def _read_similarity(model: FieldReader, inner: FieldReader, record: ImportRecord, default: Similarity) -> None:
    is_easyrec, name = record.system == EASYREC, "simi_func" if record.system == EASYREC else "similarity"
    given = inner.get(name, str(default))
    if given not in set(Similarity):
        record.without_counterpart[f"{inner.path}.{name}: {given}"] = f"it was never implemented; {default} in its place"
        given = str(default)
    record.put("model.similarity", given, inner.origin(name))
    is_softmax = _read_loss(model, record) is Loss.SOFTMAX
    inner.put("model.temperature", "temperature", 1.0)
    if not is_easyrec:
        return
    if given != Similarity.COSINE:
        record.put("model.temperature", 1.0, inner.origin("temperature"))
        inner.without_counterpart("temperature", "EasyRec uses it for COSINE alone, so it is 1 here")
    is_scaled, origin = inner.get("scale_simi", True), inner.origin("scale_simi")
    record.put("model.learn_temperature", is_scaled and is_softmax, origin)
    record.put("model.learn_scale", is_scaled and not is_softmax, origin)
    if is_scaled and is_softmax:
        record.tell("scale_simi: the learned factor is model.learn_temperature; its offset cancels in a softmax.")
    record.tell("EasyRec's additional loss mean(relu(-similarity of the pair)) is not there.")


def _read_loss(model: FieldReader, record: ImportRecord) -> Loss:
    losses, loss, lost = model.messages("losses"), Loss.SOFTMAX, record.without_counterpart
    if record.system == TORCH:
        for given in losses:
            given.message("softmax_cross_entropy")
        names = [name for given in losses for name in given.names]
        if names not in ([], ["softmax_cross_entropy"]):
            lost[f"{model.path}.losses: {', '.join(names)}"] = "the loss is softmax_cross_entropy, softmax here"
        origin = f"{model.path}.losses"
    else:
        reader = losses[0] if losses else model
        for extra in losses[1:]:
            lost[f"{extra.path}.loss_type: {extra.get('loss_type', '')}"] = "there is one loss, the first"
        name, origin = reader.get("loss_type", "CLASSIFICATION"), reader.origin("loss_type")
        if name not in LOSSES:
            lost[f"{reader.path}.loss_type: {name}"] = "softmax in its place; your own loss can be registered"
        loss = LOSSES.get(name, Loss.SOFTMAX)
    record.put("model.loss", str(loss), origin)
    if loss is not Loss.L2:
        record.tell("logQ: logits are corrected by how often an item is drawn as a negative (model.logq); 0 switches it off.")
    if loss is not Loss.SOFTMAX:
        record.tell(f"Loss {loss}: negatives are the batch's other items and sampled ones, not the samples with label 0.")
    return loss


def _read_in_batch(inner: FieldReader, record: ImportRecord) -> None:
    is_torch = record.system == TORCH
    name = "in_batch_negative" if is_torch else "ignore_in_batch_neg_sam"
    origin, in_batch = inner.origin(name), inner.get(name, False) is is_torch
    if is_torch and in_batch and record.settings["model.num_sample"].value:
        record.put("model.num_sample", 0, f"{origin}: TorchEasyRec leaves out sampled negatives then")
        record.tell("in_batch_negative leaves out the sampled negatives; model.num_sample above 0 adds them here.")
    if not is_torch and inner.all("hist_seq_masks", str):
        record.put("model.user_positive_mask", True, inner.origin("hist_seq_masks"))
        record.tell("hist_seq_masks: every known positive of the user is masked, not only items of the named sequences.")
    if not in_batch and not record.settings["model.num_sample"].value:
        in_batch = True
        record.tell("Without a sampler the batch's other items are the negatives (model.in_batch).")
    record.put("model.in_batch", in_batch, origin)
    record.put("model.logq", 1.0, "see import_report.md")
    record.tell("A row's own item is never its negative, drawn or not.")


def read_training(train: FieldReader, data: FieldReader, record: ImportRecord) -> None:
    """Records batch size, epochs, optimisers, learning rates, clipping and precision."""
    is_torch = record.system == TORCH
    data.put("training.batch_size", "batch_size", 1024 if is_torch else 32)
    holder = train if is_torch else data
    epochs, steps = holder.get("num_epochs", 0), train.get("num_steps", 0)
    if 1 <= epochs <= _MAX_EPOCHS:
        holder.put("training.epochs", "num_epochs", 0)
    elif epochs:
        holder.without_counterpart("num_epochs", f"at most {_MAX_EPOCHS}; training.epochs keeps its default")
    if steps:
        train.without_counterpart("num_steps")
    if is_torch:
        sparse, dense = train.message("sparse_optimizer"), train.message("dense_optimizer")
        _read_optimisers(sparse, dense, steps, record)
        if (given := sparse.choice(("exponential_decay_learning_rate", "manual_step_learning_rate"))) is not None:
            sparse.without_counterpart(given, "embeddings have the schedule of the dense layers")
        sparse.message("constant_learning_rate")
    elif optimisers := train.messages("optimizer_config"):
        if len(optimisers) > 2:
            reason = "the first is for embeddings, the last for layers"
            record.without_counterpart[f"{optimisers[1].path}: {len(optimisers)} optimisers"] = reason
        _read_optimisers(optimisers[0], optimisers[-1], steps, record)
    if train.get("gradient_clipping_by_norm", 0.0) > 0:
        train.put("training.gradient_clip", "gradient_clipping_by_norm", 0.0)
    clipping, precision = train.message("grad_clipping"), train.get("mixed_precision", "")
    if clipping.get("clipping_type", "none") == "norm":
        clipping.put("training.gradient_clip", "max_gradient", 1.0)
    if precision == "BF16":
        record.put("training.precision", str(Precision.BFLOAT16), train.origin("mixed_precision"))
    elif precision:
        train.without_counterpart("mixed_precision")
    record.tell("The learning rate rises and then falls linearly; other schedules are matched at both ends.")


def _read_optimisers(sparse: FieldReader, dense: FieldReader, steps: int, record: ImportRecord) -> None:
    is_torch = record.system == TORCH
    for key, optimiser in (("embedding_learning_rate", sparse), ("learning_rate", dense)):
        kind, inner = optimiser.only_message("_optimizer")
        rates = optimiser if is_torch else inner.message("learning_rate")
        rate = inner if is_torch else rates.only_message()[1]
        usual = "lr" if is_torch else "learning_rate"
        rate.put(f"training.{key}", rate.choice(("initial_learning_rate", "learning_rate_base", usual)) or usual, 0.002)
        if key == "learning_rate":
            if kind in ("adamw_optimizer", "adam_asyncw_optimizer"):
                inner.put("training.weight_decay", "weight_decay", 0.0 if is_torch else 1e-6)
            elif kind not in ("adam_optimizer", "adam_async_optimizer", "lazy_adam_optimizer", ""):
                reason = "dense layers have AdamW; with weight_decay 0 it is Adam"
                record.without_counterpart[f"{inner.path} (of dense layers)"] = reason
            _read_schedule(rates, steps, record)
            continue
        chosen = EmbeddingOptimiser.ADAM if "adam" in kind else EmbeddingOptimiser.ADAGRAD
        record.put("training.embedding_optimiser", str(chosen), inner.path)
        if "adam" in kind or "adagrad" in kind:
            record.tell("Moments of embeddings: one second moment per row, not per value.")
        else:
            reason = f"rows of embeddings have adagrad or adam; {chosen} in its place"
            record.without_counterpart[f"{inner.path} (of embeddings)"] = reason
    if (factor := sparse.get("embedding_learning_rate_multiplier", 1.0)) != 1.0:
        base = record.settings["training.embedding_learning_rate"]
        record.put("training.embedding_learning_rate", base.value * factor, f"{base.origin}, times {factor:g}")
    decay = dense.get("moving_average_decay", 0.9999)
    if dense.get("use_moving_average", False):
        record.put("training.weight_average", decay, dense.origin("moving_average_decay"))


def _read_schedule(rates: FieldReader, steps: int, record: ImportRecord) -> None:
    """Records warm-up and the last learning rate, as fractions of the steps and of the learning rate."""
    kind, schedule = rates.only_message("_learning_rate")
    path = schedule.path if kind else f"{rates.path}.constant_learning_rate"
    warmup_frac, last_frac, origins = 0.0, 1.0, [path, path]
    if kind == "exponential_decay_learning_rate":
        first, least = float(record.settings["training.learning_rate"].value), schedule.get("min_learning_rate", 0.0)
        size = schedule.get("decay_size", schedule.get("decay_steps", 0))
        factor = schedule.get("decay_factor", 0.95)
        warmup = schedule.get("warmup_size", schedule.get("burnin_steps", 0))
        last_frac = least / first if first > 0 else 0.0  # a rate of 0 is refused later, with the section
        if steps and size > 0 and 0 < factor <= 1 and not schedule.get("by_epoch", False):
            last_frac = max(factor ** (steps / size), last_frac)
            origins[1] = f"{path} after {steps} steps, at least {least:g}"
        else:
            origins[1] = schedule.origin("min_learning_rate")
            for name in ("decay_size", "decay_steps", "decay_factor", "by_epoch"):
                schedule.without_counterpart(name)
        if steps:
            warmup_frac = warmup / steps
        elif warmup:
            record.without_counterpart[f"{path}: {warmup} steps of warm-up"] = "a fraction of the steps: training.warmup_frac"
    elif kind == "cosine_decay_learning_rate":
        warmup_frac = schedule.get("warmup_steps", 10_000) / max(1, schedule.get("total_steps", 4_000_000))
        last_frac, origins[0] = 0.0, schedule.origin("warmup_steps")
    elif kind not in ("", "constant_learning_rate"):
        record.without_counterpart[path] = "training.warmup_frac and final_learning_rate_frac keep their defaults"
        return
    record.put("training.warmup_frac", round(min(0.5, warmup_frac), 6), origins[0])
    record.put("training.final_learning_rate_frac", round(min(1.0, last_frac), 6), origins[1])
