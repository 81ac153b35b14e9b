"""The root configuration: one YAML file, parsed once into frozen models that forbid unknown keys.

Belongs here: the root, the sections on source tables, events and days, and the errors of a bad configuration. Reading the
file is in `storage/config_file.py`, the grammar of feature definitions in `core/features/spec.py`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from dssm_assets.core import columns as col
from dssm_assets.core.config.channels import Channels
from dssm_assets.core.config.engines import DuckDB, Platform, Spark
from dssm_assets.core.config.evaluation import Evaluation, Explore, Gate, Serving
from dssm_assets.core.config.features import HashFunction, RawFeatures, Statistics
from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.config.section import UNREGISTERED, Names, Section, check_distinct, describe_fault
from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.names import check_time_format, extra_baselines


class FileFormat(StrEnum):
    """How a source table is stored."""

    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"
    """JSON lines: one object per line."""
    SQL = "sql"
    """A table or query of PostgreSQL, MySQL, MariaDB or SQLite."""
    DELTA = "delta"
    """A Delta table: `uri` is its folder."""
    ICEBERG = "iceberg"
    """An Iceberg table: `uri` is the name of a catalog that pyiceberg's configuration or `storage_options` describe."""


class Layout(StrEnum):
    """How a source table is divided into days."""

    SNAPSHOT = "snapshot"
    """One file or folder that is valid on every day."""
    DS_FOLDERS = "ds_folders"
    """One folder per day, named `ds=YYYY-MM-DD` or `ds=YYYYMMDD`; of sql, delta and iceberg, the column `ds`."""
    TIME_COLUMN = "time_column"
    """One file or folder; the time column decides the day of each row."""


_PASSWORD: Final = re.compile(
    r"^(?:postgres|mysql|mariadb).*(?:://[^/@]*:[^@]*@|[?&]\w*passw\w*=)|^(?:lancedb|qdrant|milvus).*(?:://[^/?]*@|[?&]\w+=)",
    re.IGNORECASE,
)
"""Any login or option in the URI of a vector store may be a password."""
_STORE_OPTIONS: Final = "Options of the fsspec filesystem. Put no secrets here: use environment variables."


def refuse_password(uri: str) -> str:
    """Returns the URI unchanged; raises a ValueError if it holds a password."""
    if _PASSWORD.search(uri):
        raise ValueError("a password in it would stand in logs: put it into an environment variable and write env:NAME")
    return uri


class SourceTable(Section):
    """Location of a source table and the mapping of its columns."""

    uri: Annotated[str, AfterValidator(refuse_password)] = Field(
        min_length=1,
        description="Path or fsspec URL of a file or folder. `{data}` is the folder of the configuration file. Of sql, the database: "
        "`env:NAME`, where the environment variable NAME holds its URI, or a URI without a password.",
    )
    format: FileFormat = Field(default=FileFormat.PARQUET, description="How the table is stored.")
    table: str | None = Field(default=None, description="Of sql and iceberg: the name of the table, e.g. `shop.clicks`.")
    query: str | None = Field(default=None, description="Of sql, in place of `table`: a SELECT.")
    layout: Layout = Field(default=Layout.SNAPSHOT, description="How the table is divided into days.")
    storage_options: dict[str, Any] = Field(default_factory=dict, description=_STORE_OPTIONS)
    columns: dict[str, str] = Field(default_factory=dict, description="Our column name -> the source's; others keep theirs.")
    keep: Names | None = Field(default=None, description="Source columns to keep besides the mapped ones (default: all).")
    time_columns: list[str] = Field(
        default_factory=list, description="Columns of times; each becomes a feature input days_since_<column>, its age in days."
    )
    time_format: Annotated[str, AfterValidator(check_time_format)] | None = Field(
        default=None,
        description="Format of times in texts by the directives of strptime, e.g. `%d.%m.%Y %H:%M`, `%m/%d/%Y %I:%M %p` or "
        "`%Y%m%d` (default: ISO 8601). Names are English.",
    )
    column_names: Names | None = Field(
        default=None, min_length=1, description="Names of all columns, in order, of csv files without a header line."
    )
    encoding: str | None = Field(
        default=None, description="Encoding of csv and JSON, as Python names it, e.g. cp1252 (default: UTF-8 or UTF-16)."
    )
    decimal_mark: Literal[","] | None = Field(
        default=None,
        description="`,`: texts of numbers have a decimal comma, and perhaps points between thousands, as `1.234,50`. For "
        "value columns of a log, and for users and items in csv.",
    )

    @property
    def has_versions(self) -> bool:
        """Whether the table is read at a version and can tell which days a newer version changed."""
        return self.format in (FileFormat.DELTA, FileFormat.ICEBERG)

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        try:
            "".encode(value or "utf-8")
        except LookupError as error:
            raise ValueError(f"expected the name of a text encoding, such as cp1252, got {value!r}") from error
        return value

    @model_validator(mode="after")
    def _has_texts(self) -> SourceTable:
        if self.column_names is not None and self.format is not FileFormat.CSV:
            raise ValueError(f"column_names: of csv files, format is {self.format}")
        if self.encoding is not None and self.format not in (FileFormat.CSV, FileFormat.JSON):
            raise ValueError(f"encoding: of csv and json, format is {self.format}, which has its own")
        given = [key for key in ("table", "query") if getattr(self, key) is not None]
        wanted = {FileFormat.SQL: ("table", "query"), FileFormat.ICEBERG: ("table",)}.get(self.format, ())
        if len(given) != bool(wanted) or not set(given) <= set(wanted):
            expected = f"one of {' and '.join(wanted)}" if len(wanted) > 1 else "table" if wanted else "neither table nor query"
            raise ValueError(f"{expected} with format {self.format}, not {' and '.join(given) or 'none'}")
        return self


_LOG_COLUMNS: Final = {col.USER_ID, col.ITEM_ID, col.EVENT, "event_time", col.EVENT_TIME_MS, col.HOUR, col.WEEKDAY}
"""Columns of the log that have a meaning of their own."""
_FEATURE_DATES: Final = {col.USER_FEATURE_DATE, col.ITEM_FEATURE_DATE, col.FEATURE_DATE}
_RESERVED: Final = _LOG_COLUMNS | {col.LABEL, col.USER_ROW, col.ITEM_ROW} | _FEATURE_DATES
"""With the columns of samples."""


class BehaviorTable(SourceTable):
    """The behavior log: one row per event with user, item, event name and time."""

    layout: Layout = Field(default=Layout.TIME_COLUMN, description="How the table is divided into days.")
    constant_event: str | None = Field(default=None, description="Event name of every row, for a log without an event column.")
    time_unit: Literal["auto", "s", "ms"] = Field(
        default="auto", description="Unit of an integer time column; `auto` decides by the size of the numbers."
    )
    value_columns: Names = Field(
        default_factory=list, description="Numeric columns (price, quantity, play time) that are summed per user and per item."
    )
    incomplete_rows: Literal["drop"] | None = Field(
        default=None,
        description="`drop`: leaves out rows without a user, an item or a time; NA, N/A, nan, null and None are then no ids "
        "(default: an error).",
    )
    clock_column: str | None = Field(
        default=None, description="Column with the time of day, read with a date in event_time as one text, a space in between."
    )
    context_columns: Names = Field(
        default_factory=list, description="Columns known at request time (page, network, store), for context features."
    )
    allow_empty_days: bool = Field(default=False, description="Accept a day without rows (a closed shop).")

    @field_validator("layout")
    @classmethod
    def _has_days(cls, value: Layout) -> Layout:
        if value is Layout.SNAPSHOT:
            raise ValueError("the log has days: its layout is time_column or ds_folders")
        return value

    @model_validator(mode="after")
    def _columns_have_one_meaning(self) -> BehaviorTable:
        faults = []
        for key, names in (("value_columns", self.value_columns), ("context_columns", self.context_columns)):
            reserved = _RESERVED | ({col.REQUEST_ID} if key == "value_columns" else set())
            if clashing := sorted(set(names) & reserved):
                faults.append(f"{key}: {', '.join(clashing)} has a meaning of its own; map the source's column to another name")
        if both := sorted(set(self.value_columns) & set(self.context_columns)):
            faults.append(f"{', '.join(both)} is a value and a context column: map the source's column to two names")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class Tables(Section):
    """The source tables: a behavior log, a user table and an item table."""

    user: SourceTable | None = Field(default=None, description="One row per user (default: users are the ids in the log).")
    item: SourceTable | None = Field(default=None, description="One row per item (default: items are the ids in the log).")
    behavior: BehaviorTable = Field(description="One row per event.")

    @field_validator("user", "item")
    @classmethod
    def _has_a_comma_in_csv_alone(cls, value: SourceTable | None) -> SourceTable | None:
        if value is not None and value.decimal_mark is not None and value.format is not FileFormat.CSV:
            raise ValueError(f"decimal_mark is for csv: write the numbers of this {value.format} table as numbers")
        return value


SHOWN_EVENT: Final = "shown"
"""As an exposure outside the funnel: the rows of the asset `shown`."""


class Events(Section):
    """The kinds of events, in funnel order, and their roles."""

    funnel: Names = Field(min_length=1, description="Events from the most to the least frequent, e.g. expr, click, buy.")
    positive: Names = Field(min_length=1, description="Events that the model is trained and scored on.")
    exposure: Names = Field(
        default_factory=list,
        description="Events that mean the item was shown; source of hard negatives. `shown`, unless it is in the funnel: what "
        "serving.shown has kept.",
    )

    @property
    def reads_shown(self) -> bool:
        """Whether the asset `shown` is a source of exposures."""
        return SHOWN_EVENT in self.exposure and SHOWN_EVENT not in self.funnel

    @model_validator(mode="after")
    def _known(self) -> Events:
        unknown = sorted((set(self.positive) | set(self.exposure) - {SHOWN_EVENT}) - set(self.funnel))
        if unknown:
            raise ValueError(f"events {unknown} are not in funnel {self.funnel}")
        return self


_SPECIAL_ZONES: Final = ("posix", "right/", "Factory", "localtime")
"""Known to Python, but not to Arrow, which computes local times."""


def check_timezone(name: str) -> str:
    """Returns the time zone's name unchanged; raises a ValueError if it is unknown."""
    try:
        if name.startswith(_SPECIAL_ZONES):
            raise ZoneInfoNotFoundError(name)
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("timezone must be the name of a time zone, for example Europe/Berlin or UTC") from error
    return name


class Calendar(Section):
    """The range of daily partitions."""

    start: dt.date = Field(
        description="First day with data. Histories and rebuilt states begin with it, even where earlier days are stored; "
        "`--with-upstream` makes stored states begin later."
    )
    end: dt.date | None = Field(default=None, description="Last day with data (default: yesterday).")
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="UTC", description="Time zone of days, hours and weekdays: a name such as Asia/Shanghai."
    )

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Calendar:
        if self.end is not None and self.end < self.start:
            raise ValueError(f"end {self.end} is before start {self.start}")
        return self


class Window(Section):
    """How many days a model learns from."""

    days: int = Field(default=30, ge=1, le=10_000, description="Days before the evaluation day that make the training window.")
    history_days: int | None = Field(
        default=None, ge=1, le=36_600, description="Days of user history that towers and baselines read (default: all)."
    )

    @model_validator(mode="after")
    def _history_holds_the_window(self) -> Window:
        if self.history_days is not None and self.history_days < self.days:
            raise ValueError(
                f"history_days {self.history_days} is less than days {self.days}: baselines read the training window from the history"
            )
        return self


class Features(Section):
    """Feature generation: an fg.json, inline or as a path."""

    fg: dict[str, Any] | None = Field(default=None, description="Feature definitions in the shape of fg.json, inline.")
    fg_path: str | None = Field(default=None, description="Path of an fg.json, relative to the configuration file.")
    files_outside: list[str] = Field(
        default_factory=list, description="Files outside that folder for feature definitions to name; bundles publish them."
    )
    exclude: list[str] = Field(default_factory=list, description="Features that are generated but not used by the towers.")
    hash_function: HashFunction = Field(
        default=HashFunction.MURMUR, description="Hash of categorical values; `farm_fingerprint64` is TensorFlow's."
    )

    @model_validator(mode="after")
    def _one(self) -> Features:
        if (self.fg is None) == (self.fg_path is None):
            raise ValueError("give exactly one of fg (inline) and fg_path")
        return self


class NegativeItems(Section):
    """Weights of the item corpus that negatives are sampled from."""

    alpha: float = Field(
        default=0.75, ge=0, le=2, description="weight = (positives in the window + 1) ** alpha: 0 is uniform, 1 by popularity."
    )


class Iceberg(Section):
    """Iceberg catalog in which other engines read the tables: pip install 'dssm-assets[iceberg]'."""

    catalog: str | None = Field(
        default=None,
        min_length=1,
        description="Catalog in pyiceberg's configuration (default: SQLite, iceberg.db in the home).",
    )
    tables: Names = Field(
        default=[
            "item_vectors",
            "user_vectors",
            "total_hit_rate",
            "hit_rate_detail",
            "ground_truth",
            "user_all_feature",
            "item_all_feature",
        ],
        min_length=1,
        description="Assets to publish. Each becomes a table with the column `ds`, the day; the namespace is the scene's name.",
    )


class Storage(Section):
    """Where tables, models and bundles are stored."""

    root: str = Field(
        default="{home}/tables", description="Path or fsspec URL. `{home}` is the home folder, `{name}` the scene's name."
    )
    options: dict[str, Any] = Field(default_factory=dict, description=_STORE_OPTIONS)
    grace_hours: float = Field(
        default=24.0, ge=0, le=24 * 366, description="Hours that replaced files and leftovers stay: an asset's longest run."
    )
    keep_days: dict[str, Annotated[int, Field(ge=1, le=100_000)]] = Field(
        default={},
        description="Asset group -> days for which its partitions stay, back from the latest stored day; other groups stay, and so do "
        "logs and whatever a bundle or an experiment was built from. Example: `{sample: 60, training: 14, vectors: 14}`.",
    )
    iceberg: Iceberg | None = Field(
        default=None, description="`{}` publishes tables to an Iceberg catalog, without copying their files (default: none)."
    )


class VectorTable(StrEnum):
    """A table of vectors in a vector store."""

    ITEM = "item"
    USER = "user"


class VectorStore(Section):
    """The vector store to load from the served bundle. With this section, even an empty one, jobs make the asset `vector_store`."""

    uri: Annotated[str, AfterValidator(refuse_password)] | None = Field(
        default=None,
        min_length=1,
        description="`lancedb:///folder`, `lancedb+s3://bucket/folder`, `postgresql://host/database`, `qdrant://host:6333` or "
        "`milvus://host:19530`, without a password; or `env:NAME`, where the environment variable NAME holds it (default: LanceDB in "
        "the folder `lancedb` of the storage).",
    )
    tables: Annotated[list[VectorTable], Field(min_length=1), AfterValidator(check_distinct)] = Field(
        default=[VectorTable.ITEM], description="Which vectors are published."
    )


class PipelineConfig(Section):
    """The whole configuration of one scene: one pair of towers and its tables."""

    name: str = Field(
        default="dssm",
        pattern=r"^[a-z][a-z0-9_]*$",
        description="Name of the scene, and prefix of its keys among other scenes.",
    )
    plugins: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]], AfterValidator(check_distinct)
    ] = Field(
        default=[],
        description="Modules that register losses, samplers, poolings, baselines and feature operators of your own, e.g. "
        "`[my_project.losses]`; installed, or in a command's working folder.",
    )
    seed: int = Field(default=17, ge=0, lt=2**63, description="Seed of everything random. The same seed gives the same bytes.")
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
    channels: Channels = Channels()
    evaluation: Evaluation = Evaluation()
    explore: Explore = Explore()
    gate: Gate = Gate()
    serving: Serving = Serving()
    vector_store: VectorStore | None = None
    storage: Storage = Storage()
    platform: Platform = Platform()
    engine: Literal["duckdb", "spark"] = Field(
        default="duckdb", description="Engine of daily tables and features: DuckDB in this process, or a Spark cluster."
    )
    spark: Spark = Spark()
    duckdb: DuckDB = DuckDB()


def parse_config(raw: Mapping[str, Any], where: str = "configuration") -> PipelineConfig:
    """Returns the configuration for a parsed YAML mapping.

    Raises:
        ConfigError: names all unknown keys and bad values at once. If there are none, it names every contradiction between sections.
    """
    try:
        config = PipelineConfig.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError([_fault(where, item) for item in error.errors()]) from error
    found = (*_find_wrong_events(config), *_find_untrainable(config), *_find_short_retention(config))
    ConfigError.raise_if(Fault(f"{where}, key {key}", *others) for key, *others in found)
    return config


_Parts: TypeAlias = tuple[str, str, str, str]
"""Key, expectation, value and remedy of a fault."""


def _find_wrong_events(config: PipelineConfig) -> Iterator[_Parts]:
    log, funnel, positive, model = config.tables.behavior, config.events.funnel, config.events.positive, config.model
    key = "tables.behavior.constant_event"
    if log.constant_event is not None and col.EVENT in log.columns:
        got = f"also a mapping of event to {log.columns[col.EVENT]!r}"
        yield key, "the only source of event names", got, "remove one of the two"
    if log.constant_event is not None and log.constant_event not in funnel:
        yield key, f"an event of the funnel {funnel}", repr(log.constant_event), "add it to events.funnel"
    if unknown := sorted(set(model.event_weights) - set(positive)):
        expected, remedy = f"events of events.positive: {', '.join(positive)}", "remove them, or make them positive events"
        yield "model.event_weights", expected, ", ".join(unknown), remedy
    taken, log_of_shown = config.evaluation.shown, config.serving.shown
    if unknown := sorted(set(taken.events if taken else ()) - set(funnel)):
        expected = f"events of events.funnel: {', '.join(funnel)}"
        yield "evaluation.shown.events", expected, ", ".join(unknown), "correct them"
    if taken is not None and log_of_shown is None:
        yield "evaluation.shown", "a log of what was shown", "none", "set serving.shown"
    if config.events.reads_shown and log_of_shown is None:
        yield "events.exposure", f"events of the funnel {funnel}, or a log of what was shown", SHOWN_EVENT, "set serving.shown"
    if model.has_hard_negatives and not config.events.exposure:
        remedy = "name the event that means shown, or choose a sampler without hard negatives"
        yield "events.exposure", f"an event: the sampler is {model.sampler}", "none", remedy


def _find_untrainable(config: PipelineConfig) -> Iterator[_Parts]:
    model, training = config.model, config.training
    extras, known = config.evaluation.extra_baselines, extra_baselines()
    if missing := [name for name in config.gate.baselines or () if name in known and name not in extras]:
        expected, remedy = "baselines that are fitted", "add it to evaluation.extra_baselines, which fits it"
        yield "gate.baselines", expected, ", ".join(missing), remedy
    if not model.in_batch and not model.num_sample and model.sampler is not Sampler.ALL:
        got = f"in_batch off, num_sample 0 and sampler {model.sampler}"
        yield "model", "negatives: in_batch, num_sample, or sampler all", got, "switch one of them on"
    if model.prior and not training.validation_days:
        expected, remedy = "validation days on which its strength is chosen", "set training.validation_days above 0"
        yield "model.prior", expected, "none: validation_days is 0", remedy
    if training.validation_days >= config.window.days:
        expected = f"fewer days than window.days, {config.window.days}: the others are trained on"
        yield "training.validation_days", expected, str(training.validation_days), "lengthen the window or set it lower"
    if model.frozen_embedding is not None and training.svd_init is None:
        remedy = "set it, or unset model.frozen_embedding"
        yield "model.frozen_embedding", "training.svd_init, which computes it", "none", remedy


def _find_short_retention(config: PipelineConfig) -> Iterator[_Parts]:
    """Yields a fault where days of a group, or of the log, would be removed before they are last read."""
    held_out = max(config.channels.held_out_days, config.training.validation_days) + 1
    window = config.window.days + config.evaluation.span_days + held_out
    log = config.serving.shown
    if config.events.reads_shown and log is not None and log.keep_days < window:
        expected = f"at least {window} days, which the next evaluation day reads"
        yield "serving.shown.keep_days", expected, str(log.keep_days), "keep them longer"
    least = dict.fromkeys(("features_raw", "fg", "sample", "statistics"), window)
    warm = max(1, config.training.validation_days) + 1 if config.training.warm_start else 1
    least |= {"training": warm, "vectors": 2, "config": warm, "serving": 1}  # drift of vectors is against the day before
    least |= {"evaluation": config.gate.last_partitions + 1}
    for group, days in config.storage.keep_days.items():
        key = f"storage.keep_days.{group}"
        if group not in least:
            yield key, f"a group: {', '.join(sorted(least))}", group, "name one of these; source tables are logs and stay"
        elif days < least[group]:
            yield key, f"at least {least[group]} days, which the next evaluation day reads", str(days), "keep them longer"


_MAY_BE_SECRET: Final = re.compile(
    r"platform\.(webhook_url|mlflow_uri)|vector_store|storage\.options|tables\.\w+(\.uri|\.storage_options|$)"
)


def _fault(where: str, item: Any) -> Fault:
    place = ".".join(str(part) for part in item["loc"]) or "(root)"
    location = f"{where}, key {place}"
    shown = "a value that may be secret and is not shown" if _MAY_BE_SECRET.match(place) else repr(item.get("input"))[:200]
    if item["type"] == UNREGISTERED:
        remedy = "correct the value, or name the module that registers it in the key plugins"
        return Fault(location, item["msg"], shown, remedy)
    return describe_fault(item, location, _known_keys(item["loc"][:-1]), shown)


def _known_keys(path: Sequence[Any]) -> list[str]:
    """Returns the keys of the section at a path; indices of lists and names of mappings have no section of their own."""
    section: Any = PipelineConfig
    for part in path:
        declared = section.model_fields.get(part)
        inner = () if declared is None else (declared.annotation, *get_args(declared.annotation))
        section = next((each for each in inner if isinstance(each, type) and issubclass(each, Section)), section)
    return list(section.model_fields)
