"""Reads stored results from Python: tables, the model of a day, and lists from the published bundle.

The configuration and home are found by the rule of `storage/config_choice.py`, as for every command. In a folder with a
config.yaml, or with the demo's .dssm, no argument is needed. Nothing here needs Dagster.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dssm_assets.core.days import DAY_FORMS, LATEST, read_day
from dssm_assets.core.errors import ConfigError, Fault, InputError
from dssm_assets.storage.config_choice import choose_config
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.layout import serving_root
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from dssm_assets.core.models.two_tower import TwoTower
    from dssm_assets.service.engine.recall_engine import RecallAnswer
    from dssm_assets.steps.workspace import Workspace

Day = str | dt.date


@dataclass(frozen=True)
class StoredTable:
    """One partition of a table: the table's name, the day, the meaning of the columns, the rows."""

    manifest: Manifest
    _tables: TableStore

    @property
    def day(self) -> str:
        return self.manifest.ds

    @property
    def columns(self) -> dict[str, str]:
        return {column.name: column.description for column in self.manifest.columns}

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Returns the rows, with all columns or some.

        Raises:
            PartitionReplacedError: the partition was written again, and its former files are gone. Open the table again.
        """
        return self._tables.read(self.manifest, columns)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Returns the rows as a pandas table. See `to_arrow`."""
        found: pd.DataFrame = self.to_arrow(columns).to_pandas()
        return found

    def to_polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Returns the rows as a Polars table. See `to_arrow`.

        Raises:
            ImportError: Polars is not installed.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError("to_polars needs Polars. To fix: pip install 'dssm-assets[polars]'") from error
        return pl.DataFrame(pl.from_arrow(self.to_arrow(columns)))


class StoredModel:
    """The trained model of a day: its towers, and its rankings of the day's items for the day's users."""

    def __init__(self, workspace: Workspace, day: str) -> None:
        """Opens the model.

        Raises:
            PartitionMissingError: the model or its vectors of the day are not stored.
        """
        from dssm_assets.steps.scoring import DayVectors

        self.day = day
        stored = (workspace.need(name, day) for name in ("item_vectors", "user_vectors"))
        self._workspace, self._vectors = workspace, DayVectors(workspace, *stored)

    @cached_property
    def towers(self) -> TwoTower:
        """Returns the two towers, a torch module in evaluation mode with memory-mapped tables."""
        from dssm_assets.steps.vectors import open_towers

        return open_towers(self._workspace, self.day)[1]

    def top_items(self, user_ids: Sequence[Any], k: int = 200) -> pa.Table:
        """Returns the k items with the highest similarity per user: user_id, item_id, score.

        Users are in ascending order, each with the best item first. A user without a vector has no rows.

        Raises:
            InputError: k is not positive, or an id has a type that the table's ids cannot have.
        """
        from dssm_assets.core.arrays.ids import cast_ids

        if k < 1:
            raise InputError(Fault("argument k", "at least 1", str(k), "ask for a longer list"))
        kind = self._workspace.tables.open(self._vectors.user_vectors).schema.field("user_id").type
        users = cast_ids(pa.array(sorted(set(user_ids))), kind, "argument user_ids")
        scorer = self._vectors.scorer(users)
        items, scores = scorer.top_k(pa.array(range(len(users)), pa.int64()).to_numpy(), min(k, len(scorer.item_ids)))
        is_found = items >= 0
        return pa.table(
            {
                "user_id": users.take(pa.array(is_found.nonzero()[0])),
                "item_id": scorer.item_ids.take(pa.array(items[is_found])),
                "score": scores[is_found],
            }
        )


def open_table(
    name: str,
    day: Day = LATEST,
    *,
    config: str | Path | None = None,
    home: str | Path | None = None,
    scene: str | None = None,
) -> StoredTable:
    """Opens one day's partition of a table.

    Example:
        >>> table = open_table("user_table", "first")
        >>> table.to_pandas().columns.to_list()
        ['user_id', 'city']

    Args:
        name: name of the table. Any asset is a table, except models and other artifacts.
        day: a date (also as YYYY-MM-DD); or `first` or `latest` of the stored days; or `latest-N`, N calendar days earlier.
        config: the configuration file.
        home: the home folder.
        scene: name of the configuration to use, if there are several.

    Raises:
        ConfigError: no configuration is found, or it is wrong.
        PartitionMissingError: the day is not stored.
        InputError: the asset is not a table, or `day` is not a day.
    """
    loaded = load_chosen(config, home, scene)
    partitions = PartitionStore(loaded.root, loaded.config.storage.options)
    manifest = partitions.need(name, _choose_day(partitions, name, day))
    if not manifest.is_table:
        raise InputError(Fault(f"argument name, {name}", "a table", "an artifact", "open the model with load_model"))
    return StoredTable(manifest, TableStore(partitions))


def rates(
    day: Day = LATEST,
    *,
    scope: str = "all",
    population: str = "warm",
    config: str | Path | None = None,
    home: str | Path | None = None,
    scene: str | None = None,
) -> pd.DataFrame:
    """Returns the hit rates of a day: a row per scorer, a column per length of the list.

    The table `total_hit_rate` has intervals and counts.

    Example: hit_rate@10 of the served list, and of the vectors alone.
        >>> rates().loc[["merged", "model"], 10].round(2).to_dict()
        {'merged': 1.0, 'model': 1.0}

    Args:
        day, config, home, scene: see `open_table`.
        scope: the items that count: all, discovery, repeat, new, unseen or cold.
        population: warm (user and item are known from the window), not_warm or all.

    Raises:
        InputError: the day has no such scope or population. For other errors see `open_table`.
    """
    table = open_table("total_hit_rate", day, config=config, home=home, scene=scene).to_pandas()
    rows = table[(table["scope"] == scope) & (table["population"] == population)]
    if rows.empty:
        pairs = table[["scope", "population"]].drop_duplicates().agg(" ".join, axis=1)
        raise InputError(
            Fault("arguments scope and population", f"one of: {', '.join(pairs)}", f"{scope} {population}", "correct them")
        )
    return rows.pivot(index="scorer", columns="k", values="hit_rate").reindex(rows["scorer"].unique())


def load_model(
    day: Day = LATEST,
    *,
    config: str | Path | None = None,
    home: str | Path | None = None,
    scene: str | None = None,
) -> StoredModel:
    """Opens the trained model of a day. For arguments and errors see `open_table`.

    Example:
        >>> load_model().top_items(["a0", "b1"], k=3).column("user_id").to_pylist()
        ['a0', 'a0', 'a0', 'b1', 'b1', 'b1']
    """
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(load_chosen(config, home, scene))
    return StoredModel(workspace, _choose_day(workspace.tables.partitions, "item_vectors", day))


def recall(
    user_id: Any = None,
    *,
    features: Mapping[str, Any] | None = None,
    history: Mapping[str, Any] | None = None,
    events: Mapping[str, Any] | None = None,
    item_id: Any = None,
    k: int = 200,
    exclude: Sequence[Any] = (),
    filters: Any = None,
    exclude_history: bool = False,
    channels: str | None = None,
    fields: Sequence[str] = (),
    explain: bool = False,
    config: str | Path | None = None,
    home: str | Path | None = None,
    scene: str | None = None,
) -> RecallAnswer:
    """Returns the items that the published bundle recalls for a user or an item. The command is `dssm-assets recall`.

    With serving.shown the answer is kept, as `serve` keeps it. Every call opens the bundle. For many lists, open a `dssm_assets.service.engine.recall_engine.RecallEngine` once.

    Example:
        >>> answer = recall("a0", k=5, filters={"category": "cat_a"})
        >>> answer.source.value, len(answer.item_ids)
        ('stored', 5)

    Args:
        user_id: a user. An unknown user without features gets the popular items.
        features: the user's features by input name; they replace the stored features.
        history: lists with the user's events, oldest first, such as item_ids and event_times_ms; replaces the stored history.
        events: like `history`, but added to the stored history, such as events of a session. Repeated events are dropped.
        item_id: an item, given instead of a user; the answer has the most similar items.
        k: length of the list.
        exclude: items to leave out.
        filters: conditions on item columns, in the form of `--filters` and of the service.
        exclude_history: leave out items that the user interacted with before.
        channels: merged or vectors. By default merged if the bundle has channels.
        fields: columns of serving.filters to include in the answer.
        explain: include the reasons for each item of a merged list.
        config, home, scene: see `open_table`.

    Raises:
        ConfigError: no configuration is found, or it is wrong.
        StorageError: no bundle is published.
        InputError: an argument is wrong, or both a user and an item are given.
    """
    from dssm_assets.service.engine.recall_engine import ListOptions, Lists, open_hook, recall_once
    from dssm_assets.service.engine.request_encoder import UserInputs

    if channels is not None and channels not in list(Lists):
        raise InputError(Fault("argument channels", f"one of: {', '.join(Lists)}", repr(channels), "correct it"))
    lists = None if channels is None else Lists(channels)
    loaded = load_chosen(config, home, scene)
    location = serving_root(loaded.root), loaded.config.storage.options
    hook = open_hook(loaded.config.serving, *location)
    try:
        return recall_once(
            *location,
            loaded.config.serving,
            user_id=user_id,
            inputs=UserInputs(features or {}, history or {}, events or {}),
            item_id=item_id,
            options=ListOptions(k, exclude, filters, exclude_history, lists, fields, explain),
            hook=hook,
        )
    finally:
        if hook is not None:
            hook.close()


def load_chosen(config: str | Path | None, home: str | Path | None, scene: str | None) -> LoadedConfig:
    """Loads the configuration chosen by the arguments. For arguments and errors see `open_table`."""
    choice = choose_config(None if config is None else str(config), None if home is None else Path(home))
    found = [load_config(path, choice.home, checks_features=False) for path in choice.paths]
    named = found if scene is None else [one for one in found if one.config.name == scene]
    if len(named) != 1:
        known = ", ".join(one.config.name for one in found)
        got = "none" if scene is None else repr(scene)
        raise ConfigError(Fault("argument scene", f"one of: {known}", got, "name one, or only its file as config"))
    return named[0]


def _choose_day(partitions: PartitionStore, name: str, day: Day) -> str:
    try:
        text = read_day(day if isinstance(day, str) else day.strftime("%Y-%m-%d"))
    except (ValueError, AttributeError) as error:
        raise InputError(Fault("argument day", f"a date, {DAY_FORMS}", repr(day), "correct it")) from error
    return partitions.choose_day(name, text)
