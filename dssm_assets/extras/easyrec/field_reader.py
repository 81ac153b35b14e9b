"""Reads fields of a message by name, and records the import. A field that is never read is reported as without counterpart."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from dssm_assets.core.errors import Fault
from dssm_assets.extras.easyrec.text_format import Entry, Message, Word

_BOOLEANS: Final = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}
_KINDS: Final[dict[type, tuple[tuple[type, ...], str]]] = {
    str: ((str,), "a text"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    bool: ((Word, int), "true or false"),
    Message: ((Message,), "a message"),
}
"""Wanted kind -> fitting types of values, and a name of the kind for errors."""
_T = TypeVar("_T")
_FIELDS: Final = {
    "the source tables are named in `tables`": "train_input_path",
    "a day is evaluated by its own events": "eval_input_path",
    "item vectors are computed from item_features_fg": "item_input_path",
    "models are partitions of dssm_model in storage.root": "model_dir",
    "features.fg_path; pass the file as the second argument": "fg_json_path",
    "evaluation.k and evaluation.segments; ranks are among all items": "eval_config metrics train_metrics",
    "evaluation ranks all items exactly": "num_eval_sample eval_batch_size",
    "serving_bundle has both towers as ONNX (section serving)": "export_config",
    "samples are made from the source tables": "data_config",
    "the columns of samples follow from tables and fg.json": "input_fields",
    "events.positive names the events that are trained on": "label_fields",
    "model.event_weights and model.recency_half_life_days weight samples": "sample_weight sample_weight_fields",
    "sampled items have all features of the item tower": "attr_fields attr_delimiter field_delimiter",
    "the asset negative_items has the items and their weights": "input_path",
    "known positives come from positive_sample": "user_input_path pos_edge_input_path",
    "hard negatives are the events of events.exposure without interaction": "hard_neg_edge_input_path",
    "model.embedding_dropout is the nearest": "sample_mask_prob negative_sample_mask_prob use_mask",
    "training.checkpoint_minutes": "save_checkpoints_steps save_checkpoints_secs save_checkpoints_epochs",
    "training.warm_start begins with the last model before the day": "fine_tune_checkpoint",
    "training.num_processes": "train_distribute num_gpus_per_worker sync_replicas",
    "training.weight_decay is decoupled from the loss, so its value means something else": "l2_regularization",
    "the asset feature_importance measures features": "variational_dropout",
    "epochs x positives of the window / batch_size; set training.epochs": "num_steps",
    "without num_steps the learning rate falls to min_learning_rate at the end": "decay_size decay_steps decay_factor by_epoch",
    "float32 or bfloat16": "mixed_precision",
    "set training.batch_size to the product": "gradient_accumulation_steps",
    "interests are attention poolings of the embeddings": "capsule_config pre_capsule_dnn hist_seq_mlp",
    "model.hidden_units are the layers of both towers": "user_dnn user_mlp concat_dnn concat_mlp",
    "a sample trains the interest that is nearest to its item": "simi_pow",
    "a pooling of kind sequence knows the time between events": "time_id_fea",
    "layers have ReLU": "activation",
    "0.9 and 0.999, as torch's defaults": "beta1 beta2",
    "the learning rate rises from near 0 and falls smoothly": "burnin_learning_rate warmup_learning_rate hold_base_rate_steps staircase",
    "values of a row are pooled by their (weighted) mean": "pooling combiner",
    "model.poolings pools the history": "sequence_combiner",
    "embeddings start at small random values": "init_fn initializer",
    "statistics.min_count and max_vocabulary bound a vocabulary": "ev_params",
    "vocabularies are exact, or hashed": "zch dynamicemb",
    "embeddings are trained, except model.frozen_embedding": "trainable",
    "embeddings are float32": "data_type",
    "training.shard_tables divides tables among processes": "embedding_constraints max_partitions",
    "features are generated here; default_value is the default": "fg_encoded_default_value",
    "the type of a value follows from its feature type": "fg_value_type",
    "vocab_file is relative to fg.json": "asset_dir",
    "numbers are cut into bins, each with an embedding": "autodis mlp",
    "an operand of unequal length is a missing value": "fill_missing",
    "the history is a list of events of user_id": "sequence_pk sequence_delim seq_multi_sep",
    "values come as lists, or as text of a feature that has the key separator": "separator",
    "towers read features by the names in their groups alone": "feature_groups",
    "a group has no wide part": "wide_deep group_type",
}
REASONS: Final = {name: reason for reason, names in _FIELDS.items() for name in names.split()}
"""Field -> the reason why it has no counterpart, or its replacement. For nested fields, the innermost field named here counts."""


class Setting(NamedTuple):
    """A value for a key of config.yaml, and its origin in the imported file."""

    value: Any
    origin: str


@dataclass
class ImportRecord:
    """The result of an import so far.

    Attributes:
        where: name of the imported file in errors.
        settings: key of config.yaml -> setting.
        ids: field with the name of an id column -> the column's name.
        told: sentence on a difference in behavior -> the features concerned; empty: all.
        without_counterpart: field with its line and value -> reason.
    """

    where: str
    system: str
    settings: dict[str, Setting] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    without_counterpart: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def put(self, key: str, value: Any, origin: str) -> None:
        self.settings[key] = Setting(value, origin)

    def tell(self, sentence: str, *features: str) -> None:
        """Records a difference in behavior. A sentence about features ends without a full stop."""
        self.told[sentence] = list(dict.fromkeys([*self.told.get(sentence, ()), *features]))

    @property
    def differences(self) -> list[str]:
        return [f"{sentence}: {', '.join(features)}." if features else sentence for sentence, features in self.told.items()]


class FieldReader:
    """A message that records reads of its fields.

    A value of an unexpected type is a fault of the record and counts as absent. If a single field occurs several times, the
    last value counts, as in protocol buffers.
    """

    def __init__(self, message: Message, path: str, record: ImportRecord) -> None:
        self.path, self.record, self.entries = path, record, message.entries
        self._read: dict[int, FieldReader | None] = {}  # number of an entry -> reader of its message

    @property
    def line(self) -> int:
        return self.entries[0].line if self.entries else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.name for entry in self.entries))

    def choice(self, names: Collection[str]) -> str | None:
        """Returns the last present field among `names`, or None. This does not count as reading it."""
        return next((entry.name for entry in reversed(self.entries) if entry.name in names), None)

    def values(self, name: str) -> list[Any]:
        return [entry.value for _, entry in self._find(name)]

    def get(self, name: str, default: _T) -> _T:
        """Returns the value of a field in the default's type, or the default if the field is absent.

        A float may be written as an integer.
        """
        return next(reversed(self.all(name, type(default))), default)

    def all(self, name: str, kind: type[_T]) -> list[_T]:
        """Returns the values of a repeated field. Whole numbers are integers, even in a field of floats."""
        values: list[Any] = [entry.value for _, entry in self._fitting(name, kind)]
        return [_BOOLEANS[str(value)] if kind is bool else str(value) if kind is str else value for value in values]  # type: ignore[misc]

    def put(self, key: str, name: str, default: Any) -> None:
        self.record.put(key, self.get(name, default), self.origin(name))

    def message(self, name: str) -> FieldReader:
        """Returns the reader of a nested message; an empty reader if it is absent."""
        return next(reversed(self.messages(name)), FieldReader(Message(), self._below(name), self.record))

    def messages(self, name: str) -> list[FieldReader]:
        for number, entry in self._fitting(name, Message):
            self._read[number] = self._read[number] or FieldReader(entry.value, self._below(name), self.record)  # type: ignore[arg-type]
        return [reader for number, reader in self._read.items() if reader and self.entries[number].name == name]

    def only_message(self, ending: str = "") -> tuple[str, FieldReader]:
        """Returns the name and reader of the first message field with this ending in its name; "" and this reader if there is none."""
        names = [entry.name for entry in self.entries if isinstance(entry.value, Message) and entry.name.endswith(ending)]
        return (names[0], self.message(names[0])) if names else ("", self)

    def origin(self, name: str) -> str:
        """Describes the origin of a field's value: its path and line, or the system's default."""
        lines = [entry.line for entry in self.entries if entry.name == name]
        return f"{self._below(name)}, line {lines[-1]}" if lines else f"{self.record.system}'s default of {self._below(name)}"

    def without_counterpart(self, name: str, reason: str | None = None) -> None:
        """Records that a field has no counterpart, and marks it as read. Does nothing if it is absent."""
        for number, entry in self._find(name):
            self._read[number] = None
            self.record.without_counterpart |= _leaves(entry, self._below(name), reason or REASONS[name], {})

    def tell_rest(self, reason: str) -> None:
        """Records every unread field, also of nested messages, as without counterpart.

        Args:
            reason: reason for fields that are not in REASONS.
        """
        for number, entry in enumerate(self.entries):
            if number not in self._read:
                self.record.without_counterpart |= _leaves(entry, self._below(entry.name), reason, REASONS)
            elif inner := self._read[number]:
                inner.tell_rest(REASONS.get(entry.name, reason))

    def _find(self, name: str) -> list[tuple[int, Entry]]:
        found = [(number, entry) for number, entry in enumerate(self.entries) if entry.name == name]
        for number, _ in found:
            self._read.setdefault(number, None)
        return found

    def _fitting(self, name: str, kind: type) -> list[tuple[int, Entry]]:
        types, expected = _KINDS[kind]
        fitting = []
        for number, entry in self._find(name):
            if isinstance(entry.value, types) and (kind is not bool or str(entry.value) in _BOOLEANS):
                fitting.append((number, entry))
            else:
                got = "a message" if isinstance(entry.value, Message) else str(entry.value)[:80]
                where = f"{self.record.where}, line {entry.line}, {self._below(name)}"
                self.record.faults.append(Fault(where, expected, got, "correct the value"))
        return fitting

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def _leaves(entry: Entry, path: str, otherwise: str, reasons: Mapping[str, str]) -> dict[str, str]:
    """Returns `path (line n): value` -> reason for an entry, or for every entry within it. The innermost reason counts."""
    reason = reasons.get(entry.name, otherwise)
    if isinstance(entry.value, Message) and entry.value.entries:
        leaves: dict[str, str] = {}
        for inner in entry.value.entries:
            leaves |= _leaves(inner, f"{path}.{inner.name}", reason, reasons)
        return leaves
    value = "{}" if isinstance(entry.value, Message) else entry.value if isinstance(entry.value, Word) else repr(entry.value)
    return {f"{path} (line {entry.line}): {value}": reason}
