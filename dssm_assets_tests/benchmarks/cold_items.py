"""How well items without any event are found: items of a finished home are held out, towers fitted without their events.

    python -m dssm_assets_tests.benchmarks.cold_items --home .dssm --day 2026-11-19 --day 2026-11-20 --frac 0.1
    python -m dssm_assets_tests.benchmarks.cold_items --home .dssm --day 2026-11-19 --set training.svd_init.group_by=[]

For each day the towers are fitted to the home's train_samples of that day, without the samples and events of a random fraction of
the items that have any. A pair of user and item of the day counts if its item is cold: held out, or without an event before.
Lists are of cold items alone. Popularity by category ranks the same items.

Each user has the features of the last sample before the day. With several days the held-out items of each are others, so that the
sum over days is of more items. Settings are those of the home's configuration, changed by `--set`; whether the prior helps is
chosen on the day itself, which has no influence here: all cold items have the same prior.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray, Mask, row_of_value
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.evaluation.cold_items import order_by_category
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.samples.sample_tables import DAY, HISTORY_END, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.feature_importance import fitted_item_vectors, only_items
from dssm_assets.core.training.fit_options import FitContext
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.loop import fit
from dssm_assets.core.training.validation import user_blocks, validation_set
from dssm_assets.steps.cold_items import read_categories
from dssm_assets.steps.feature_config import towers_of
from dssm_assets.steps.workspace import Workspace, open_workspace, start_of_day_ms
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.benchmarks.held_out_items import choose_items, count_events, hold_out_items


@dataclass(frozen=True)
class ColdHits:
    """Hits of a day.

    Attributes:
        pairs: of users and cold items on the day.
        held_out_pairs: those of them whose items were held out.
        candidates: cold items.
        model: hits of the model.
        category: hits of popularity by category.
        new: hit rate of items that are new to the user, own history left out (of all items, with the prior).
        seconds: of CPU time.
    """

    pairs: int
    held_out_pairs: int
    candidates: int
    model: int
    category: int
    new: float
    seconds: float


@dataclass(frozen=True)
class ColdPairs:
    """Pairs of user and cold item: the item [P], and whether it is in the user's list of cold items [P]."""

    items: IntArray
    is_hit: Mask


def cold_lists(result: FitResult, data: TrainData, first_day: int, is_cold: Mask, k: int) -> ColdPairs:
    """Returns the pairs of the days from `first_day` on whose items are cold, and which of them lists of cold items have.

    Args:
        result: towers that were fitted to the days before.
        data: the window.
        first_day: of the days that are scored.
        is_cold: bool [I].
        k: length of the lists.
    """
    every = validation_set(data, first_day)
    cold = only_items(every, is_cold)
    items = fitted_item_vectors(result, data, every)[is_cold]
    found = np.zeros(len(cold.truth.items), np.bool_)
    begin = 0
    for block in user_blocks(result.two_tower, every):
        offsets = cold.truth.offsets[begin : begin + len(block) + 1]
        place = slice(offsets[0], offsets[-1])
        scores = block @ items.T if block.ndim == 2 else (block @ items.T).max(axis=1)
        best = np.argpartition(-scores, min(k, len(items)) - 1, axis=1)[:, :k]
        wanted = row_of_value(offsets - offsets[0]) * len(items) + cold.truth.items[place]
        found[place] = np.isin(wanted, (np.arange(len(best))[:, None] * len(items) + best))
        begin += len(block)
    return ColdPairs(np.flatnonzero(is_cold)[cold.truth.items], found)


def measure_day(workspace: Workspace, ds: str, frac: float, seed: int, changes: Mapping[str, Any], k: int) -> ColdHits:
    """Returns the hits of a day."""
    begin, settings = time.process_time(), towers_of(workspace, ds)
    model, training = Model.model_validate(_changed(workspace.config.model, "model", changes)), _training(workspace, changes)
    spec = tower_spec(settings.spec.features, model)
    samples = workspace.need("train_samples", ds)
    tables = {file.name.removesuffix(".arrow"): workspace.artifacts.map_table(samples, file.name) for file in samples.files}
    is_held_out = choose_items(count_events(tables), frac, seed)
    held = hold_out_items(tables, is_held_out)
    data = TrainData(spec, **{**held, "samples": _with_day(workspace, ds, held)})
    result = fit(
        data,
        spec,
        model=model,
        training=training,
        seed=settings.seed,
        progress=lambda _: None,
        now=time.perf_counter,
        context=FitContext(ks=(k,)),
    )
    is_cold = count_events(held) == 0
    found = cold_lists(result, data, data.num_days - 1, is_cold, k)
    categories = read_categories(workspace, ds, workspace.config.evaluation.category_column)
    events = data.item_counts(data.num_days - 1)
    best = order_by_category(np.flatnonzero(is_cold), categories.values, events)[:k]
    return ColdHits(
        pairs=len(found.items),
        held_out_pairs=int(is_held_out[found.items].sum()),
        candidates=int(is_cold.sum()),
        model=int(found.is_hit.sum()),
        category=int(np.isin(found.items, best).sum()),
        new=result.scores[-1].hit_rate,
        seconds=time.process_time() - begin,
    )


def _with_day(workspace: Workspace, ds: str, tables: Mapping[str, pa.Table]) -> pa.Table:
    """Returns the samples, then the pairs of the day as samples of one day more."""
    samples, users = tables["samples"], tables["users"]
    day = workspace.tables.read(workspace.need("positive_sample", ds), [col.USER_ID, col.ITEM_ID])
    corpus = workspace.tables.read(workspace.need("negative_items", ds), [col.ITEM_ID]).column(0)
    user = IdIndex(users.column(col.USER_ID)).lookup(day.column(col.USER_ID))
    item = IdIndex(corpus).lookup(day.column(col.ITEM_ID))
    pairs = np.unique(np.stack([user, item], axis=1), axis=0)
    user, item = pairs[(pairs >= 0).all(axis=1)].T
    last_row = np.zeros(users.num_rows, np.int64)
    last_row[samples.column(USER_INDEX).to_numpy()] = samples.column(col.USER_ROW).to_numpy()  # the last one stays
    values: dict[str, Any] = {
        ITEM_INDEX: item,
        USER_INDEX: user,
        HISTORY_END: users.column(HISTORY_END).to_numpy()[user],
        col.EVENT_TIME_MS: np.full(len(user), start_of_day_ms(ds, workspace.config.calendar.timezone)),
        col.WEIGHT: np.ones(len(user)),
        DAY: np.full(len(user), int(samples.column(DAY).to_numpy().max()) + 1),
        col.USER_ROW: last_row[user],
        col.ITEM_ROW: np.zeros(len(user)),
    }
    columns = [pa.array(values[field.name]).cast(field.type) for field in samples.schema]
    return pa.concat_tables([samples, pa.table(columns, schema=samples.schema)]).combine_chunks()


def _training(workspace: Workspace, changes: Mapping[str, Any]) -> Training:
    section = _changed(workspace.config.training, "training", changes)
    return Training.model_validate({**section, "validation_days": 1, "refit": False, "num_threads": 1, "warm_start": False})


def _changed(section: Model | Training, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = section.model_dump(mode="json")
    for path, value in changes.items():
        head, *keys = path.split(".")
        if head != name:
            continue
        place = found
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one row per day, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="folder of a finished demo")
    parser.add_argument("--day", action="append", required=True, help="evaluation day with train_samples, repeatable")
    parser.add_argument("--frac", type=float, default=0.1, help="fraction of the items with events that is held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-k", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], help="key of model or training and its value, as YAML")
    given = parser.parse_args(arguments)
    workspace = open_workspace(load_config(given.home / "config.yaml", given.home))
    changes = {key: yaml.safe_load(value) for key, value in (text.split("=", 1) for text in given.set)}
    print(f"| day | pairs | held out | candidates | model, hit_rate@{given.k} | by category | new items | CPU-s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    total: list[IntArray] = []
    for number, ds in enumerate(given.day):
        hits = measure_day(workspace, ds, given.frac, given.seed + number, changes, given.k)
        total.append(np.array([hits.pairs, hits.model, hits.category]))
        rates = f"{hits.model / hits.pairs:.4f} | {hits.category / hits.pairs:.4f}"
        print(
            f"| {ds} | {hits.pairs} | {hits.held_out_pairs} | {hits.candidates} | {rates} | {hits.new:.4f} | {hits.seconds:.0f} |",
            flush=True,
        )
    pairs, model, category = np.sum(total, axis=0)
    print(f"| all | {pairs} | | | {model / pairs:.4f} | {category / pairs:.4f} | | |")


if __name__ == "__main__":
    main()
