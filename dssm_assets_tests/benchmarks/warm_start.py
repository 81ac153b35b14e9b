"""What warm starts gain: CPU seconds and hit rates of models that begin with the model of the day before.

    python -m dssm_assets_tests.benchmarks.warm_start --data DIR/online-retail

DIR/online-retail holds users.parquet, items.parquet and behavior.parquet (`dssm_assets_tests.datasets.online_retail`). All tables of
the last days of the log are built once. Then, for every requested number of epochs, the model of each day except the first
is fitted from scratch and from the model of the day before, which itself began so. The first day's model is fitted from
scratch with the most epochs. Days are scored as in production.

Belongs here: the ways and their figures. Does not belong here: copying weights (`core/training/resume/warm_start.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.evaluation.rates import total_hit_rate
from dssm_assets.datasets.source_tables import write_tables
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene
from dssm_assets.materialize import plan_runs, run_plan
from dssm_assets.steps.dssm_model import dssm_model
from dssm_assets.steps.evaluation import hit_counts
from dssm_assets.steps.feature_config import training_config
from dssm_assets.steps.vectors import item_vectors, user_vectors
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, complete_config
from dssm_assets_tests.datasets import online_retail

START, FIRST, LAST = "2011-10-20", "2011-12-05", "2011-12-09"
SCRATCH, WARM = "from scratch", "warm start"


@dataclass(frozen=True)
class Row:
    """One way over all days except the first.

    Attributes:
        way: how the fits began.
        epochs: of each.
        cpu_s: of the fits, summed over the days.
        hits, truth_count: of the model among its longest lists, summed over users of all days.
    """

    way: str
    epochs: int
    cpu_s: float
    hits: int
    truth_count: int

    @property
    def hit_rate(self) -> float:
        """Hits of all days / truth of all days."""
        return self.hits / self.truth_count


def measure(loaded: LoadedConfig, days: Sequence[str], epochs: Sequence[int]) -> list[Row]:
    """Returns the cost and the hits of each way.

    Args:
        loaded: of a home in which all days are evaluated once; their models are fitted again and again.
        days: consecutive; the first one's model is only a start.
        epochs: of a fit.
    """
    _fit(_with_training(loaded, warm_start=False, epochs=max(epochs)), days[0])
    rows = []
    for count in sorted(epochs, reverse=True):
        for way in (SCRATCH, WARM):
            changed = _with_training(loaded, warm_start=way == WARM, epochs=count)
            # In the order of days: the next day begins with this day's model.
            figures = [(_fit(changed, ds), *_count_hits(changed, ds)) for ds in days[1:]]
            cpu_s, hits, truth = (sum(part) for part in zip(*figures, strict=True))
            rows.append(Row(way, count, cpu_s, int(hits), int(truth)))
    return rows


def render(rows: Sequence[Row], k: int) -> str:
    """Returns the figures as a Markdown table, compared with the fits from scratch with the most epochs."""
    base = rows[0]
    lines = [f"| start | epochs | CPU-s of training | | hit_rate@{k} | |", "|---|---|---|---|---|---|"]
    for row in rows:
        cost, gain = row.cpu_s / base.cpu_s, row.hit_rate - base.hit_rate
        lines.append(f"| {row.way} | {row.epochs} | {row.cpu_s:.1f} | {cost:.2f}x | {row.hit_rate:.4f} | {gain:+.4f} |")
    return "\n".join(lines)


def retail(data: Path, home: Path) -> LoadedConfig:
    """Returns the log's last weeks in a home of their own, evaluated once on every day from FIRST to LAST."""
    tables = online_retail.load(data)
    begin = int(dt.datetime.fromisoformat(f"{START}T00:00:00+01:00").timestamp())
    recent = tables.behavior.filter(pc.greater_equal(tables.behavior["event_time"], begin))
    write_tables(replace(tables, behavior=recent), home / "source")
    loaded = complete_config(parse_config(CONFIG), home=home)
    run_plan(plan_runs(Scene(loaded), "daily_tables", START, LAST), Observer(), loaded.home)
    run_plan(plan_runs(Scene(loaded), "train_and_evaluate", FIRST, LAST), Observer(), loaded.home)
    return loaded


def _with_training(loaded: LoadedConfig, **changes: Any) -> LoadedConfig:
    config = loaded.config
    return replace(loaded, config=config.model_copy(update={"training": config.training.model_copy(update=changes)}))


def _fit(loaded: LoadedConfig, ds: str) -> float:
    """Fits a day's model and returns the CPU seconds."""
    workspace = open_workspace(loaded)
    list(training_config(workspace, [ds]))
    begin = time.process_time()
    list(dssm_model(workspace, [ds]))
    return time.process_time() - begin


def _count_hits(loaded: LoadedConfig, ds: str) -> tuple[int, int]:
    """Returns hits and truth of a day."""
    workspace, settings = open_workspace(loaded), loaded.config.evaluation
    for step in (item_vectors, user_vectors, hit_counts):
        list(step(workspace, [ds]))
    total = total_hit_rate(workspace.tables.read(workspace.need("hit_counts", ds)), settings.k, 1, loaded.config.seed)
    wanted = {"scorer": "model", "scope": "all", "population": "warm", "k": settings.k[-1]}
    (row,) = [row for row in total.to_pylist() if all(row[name] == value for name, value in wanted.items())]
    return row["hits"], row["truth_count"]


def _id(name: str, expression: str, **more: Any) -> dict[str, Any]:
    return {"feature_name": name, "feature_type": "id_feature", "value_dim": 1, "expression": expression, **more}


CONFIG: Final[dict[str, Any]] = {
    "name": "retail",
    "calendar": {"start": dt.date.fromisoformat(START), "end": dt.date.fromisoformat(LAST), "timezone": "Europe/London"},
    "tables": {
        "user": {"uri": "{home}/source/users.parquet"},
        "item": {"uri": "{home}/source/items.parquet"},
        "behavior": {"uri": "{home}/source/behavior.parquet", "layout": "time_column", "allow_empty_days": True},
    },
    "events": {"funnel": ["buy", "cancel"], "positive": ["buy"]},
    "window": {"days": 28},
    "raw_features": {"history_columns": ["stock_code"]},
    "features": {
        "fg": {
            "features": [
                _id("country", "user:country"),
                _id("item", "item:item_id"),
                {"feature_name": "price", "feature_type": "raw_feature", "expression": "item:unit_price", "default_value": ""},
                {
                    "feature_type": "sequence_feature",
                    "sequence_name": "history",
                    "sequence_length": 200,
                    "sequence_delim": ";",
                    "features": [_id("item", "user:item_ids", embedding_name="item")],
                },
            ],
            "reserves": [],
        }
    },
    "statistics": {"embedding_dim": {"item": 64}},
    "model": {"output_dim": 64, "hidden_units": [], "skip": True, "history": "day", "history_length": 200, "num_sample": 512},
    "training": {"epochs": 6, "batch_size": 512, "num_threads": 1},
    "evaluation": {"k": [200], "bootstrap_samples": 100},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the Online Retail tables")
    parser.add_argument("--epochs", type=int, nargs="+", default=[6, 3, 2, 1], help="epochs of the fits")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        loaded = retail(given.data, Path(folder))
        days = days_between(FIRST, LAST)
        rows = measure(loaded, days, given.epochs)
    sys.stdout.write(f"{len(days) - 1} days after {FIRST}:\n\n{render(rows, loaded.config.evaluation.k[-1])}\n")


if __name__ == "__main__":
    main()
