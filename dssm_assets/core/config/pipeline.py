"""The root configuration: one YAML file, parsed once into frozen models that forbid unknown keys.

Belongs here: the sections, their defaults, and what one section demands of another. Does not belong here: reading
the file (`storage/config_file.py`) and the feature definitions' own grammar (`core/features/spec.py`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import Field, ValidationError, model_validator

from dssm_assets.core.config.engines import DuckDB, Platform, Spark
from dssm_assets.core.config.evaluation import Evaluation, Gate, Serving
from dssm_assets.core.config.features import HashFunction, RawFeatures, Statistics
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.section import Section
from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import ConfigError, Fault


class FileFormat(StrEnum):
    """How the files of a source table are written."""

    PARQUET = "parquet"
    CSV = "csv"


class Layout(StrEnum):
    """How a source table is cut into days."""

    SNAPSHOT = "snapshot"
    """One file or folder that is valid on every day."""
    DS_FOLDERS = "ds_folders"
    """Folders `ds=YYYY-MM-DD` or `ds=YYYYMMDD`."""
    TIME_COLUMN = "time_column"
    """One file or folder whose rows fall to days by their time column."""


class SourceTable(Section):
    """Where one of the three source tables lies and how its columns map to ours."""

    uri: str = Field(
        description="Any fsspec URL or path of a file or folder. `{data}` is the folder of the configuration file."
    )
    format: FileFormat = FileFormat.PARQUET
    layout: Layout = Layout.SNAPSHOT
    storage_options: dict[str, Any] = Field(default_factory=dict, description="Options of the fsspec filesystem. No secrets.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our column -> the source's column; the rest keeps its name."
    )
    keep: list[str] | None = Field(default=None, description="Source columns to keep beside the mapped ones (default: all).")


class BehaviorTable(SourceTable):
    """The behaviour log: who did what to which item, and when."""

    layout: Layout = Layout.TIME_COLUMN
    constant_event: str | None = Field(default=None, description="Event name of every row, for a log of one kind of event.")
    time_unit: Literal["auto", "s", "ms"] = Field(
        default="auto", description="Unit of an integer time column; auto decides by size."
    )
    value_columns: list[str] = Field(default_factory=list, description="Numeric columns that are summed per user and item.")
    context_columns: list[str] = Field(
        default_factory=list, description="Columns known at request time (page, network, store)."
    )
    allow_empty_days: bool = Field(default=False, description="A day without rows is a fact (shop closed), not a fault.")


class Tables(Section):
    """The three source tables."""

    user: SourceTable
    item: SourceTable
    behavior: BehaviorTable


class Events(Section):
    """The kinds of behaviour, in funnel order, and what they mean."""

    funnel: list[str] = Field(min_length=1, description="Event names from the widest to the narrowest, e.g. expr, click, buy.")
    positive: list[str] = Field(min_length=1, description="Events that count as positive: what is trained on and scored.")
    exposure: list[str] = Field(default_factory=list, description="Events that mean: shown, not necessarily wanted.")

    @model_validator(mode="after")
    def _known(self) -> Events:
        unknown = sorted((set(self.positive) | set(self.exposure)) - set(self.funnel))
        if unknown:
            raise ValueError(f"events {unknown} are not in funnel {self.funnel}")
        if len(set(self.funnel)) != len(self.funnel):
            raise ValueError(f"funnel names an event twice: {self.funnel}")
        return self


class Calendar(Section):
    """The days that are partitions."""

    start: dt.date = Field(description="First day with data: the first daily partition.")
    end: dt.date | None = Field(default=None, description="Last day with data (None: open, up to yesterday).")
    timezone: str = Field(default="UTC", description="Time zone in which days, hours and weekdays are counted.")


class Window(Section):
    """How far back learning looks."""

    days: int = Field(default=30, ge=1, le=366, description="Days before the evaluation day from which everything is learned.")
    history_days: int | None = Field(
        default=None, ge=1, description="Days of user history that are read (None: all there are)."
    )

    @model_validator(mode="after")
    def _history_holds_the_window(self) -> Window:
        if self.history_days is not None and self.history_days < self.days:
            raise ValueError(
                f"history_days {self.history_days} is less than days {self.days}: baselines read the window from it"
            )
        return self


class Features(Section):
    """Feature generation: the fg.json, inline or as a path relative to the configuration file."""

    fg: dict[str, Any] | None = None
    fg_path: str | None = None
    exclude: list[str] = Field(default_factory=list, description="Features that are generated but not trained on.")
    hash_function: HashFunction = Field(
        default=HashFunction.MURMUR,
        description="murmur_hash64a as the reference's feature generator, or farm_fingerprint64 as TensorFlow.",
    )

    @model_validator(mode="after")
    def _one(self) -> Features:
        if (self.fg is None) == (self.fg_path is None):
            raise ValueError("give exactly one of fg (inline) and fg_path")
        return self


class NegativeItems(Section):
    """The corpus that negatives are drawn from."""

    alpha: float = Field(default=0.75, ge=0, le=2, description="weight = (window positives + smoothing) ** alpha.")
    smoothing: float = Field(default=1.0, ge=0, description="Added to every item's count, so that unseen items can be drawn.")


class Storage(Section):
    """Where partitions are written."""

    root: str = Field(
        default="{home}/tables",
        description="Any fsspec URL or path. `{home}` is the configuration's home folder, `{name}` its name.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the fsspec filesystem. Secrets: environment only."
    )


class PipelineConfig(Section):
    """Everything one scene (one pair of towers) needs to know."""

    name: str = Field(default="dssm", pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = Field(default=17, ge=0)
    calendar: Calendar
    tables: Tables
    events: Events
    features: Features
    window: Window = Window()
    raw_features: RawFeatures = RawFeatures()
    statistics: Statistics = Statistics()
    negative_items: NegativeItems = NegativeItems()
    model: Model = Model()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    serving: Serving = Serving()
    storage: Storage = Storage()
    platform: Platform = Platform()
    engine: Literal["duckdb", "spark"] = Field(
        default="duckdb", description="What computes tables and features: this process, or a Spark cluster (key spark)."
    )
    spark: Spark = Spark()
    duckdb: DuckDB = DuckDB()


def parse_config(raw: Mapping[str, Any], where: str = "configuration") -> PipelineConfig:
    """Returns the configuration that a parsed YAML mapping describes.

    Raises:
        ConfigError: naming every unknown key and bad value at once.
    """
    try:
        return PipelineConfig.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError([_fault(where, item) for item in error.errors()]) from error


def _fault(where: str, item: Any) -> Fault:
    place = ".".join(str(part) for part in item["loc"]) or "(root)"
    location = f"{where}, key {place}"
    if item["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(item["loc"][:-1])) or "no keys"
        return Fault(location, f"one of: {known}", f"unknown key {item['loc'][-1]!r}", "remove it or correct its spelling")
    if item["type"] == "missing":
        return Fault(location, "a value", "nothing", "add the key")
    return Fault(location, item["msg"], repr(item.get("input"))[:200], "correct the value")


def _known_keys(path: Sequence[Any]) -> list[str]:
    model: Any = PipelineConfig
    is_entry = False
    for part in path:
        if is_entry:  # the place in a list or the name in a mapping, of what `model` is the kind
            is_entry = False
            continue
        declared = getattr(model, "model_fields", {}).get(part)
        if declared is None:
            return []
        model, is_entry = _section_of(declared.annotation)
    return sorted(getattr(model, "model_fields", {}))


def _section_of(annotation: Any) -> tuple[Any, bool]:
    """Returns the section that a key holds, and whether it holds a list or a mapping of them."""
    inner = [part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, Section)]
    return (inner[-1], get_origin(annotation) in (list, dict)) if inner else (annotation, False)


KEYS: Final = {
    "epochs": "training.epochs",
    "learning_rate": "training.learning_rate",
    "temperature": "model.temperature",
    "num_sample": "model.num_sample",
    "k": "evaluation.k",
}
"""Setting of a run -> key of the configuration that it stands for."""


def value_of(config: PipelineConfig, key: str) -> Any:
    """Returns what the configuration says at a key `section.name`."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
