"""The table of a comparison and its one JSON line.

Belongs here: text. Does not belong here: figures (`quality_scores.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dssm_assets_tests.benchmarks.quality_metrics import PUBLISHED, metric_names
from dssm_assets_tests.benchmarks.quality_scores import FILTERED, UNFILTERED

OURS = "dssm-assets"


@dataclass
class Report:
    """What was run, and its results.

    Attributes:
        dataset: name.
        split: its rule.
        is_inner: whether the rule was applied twice.
        facts: sizes of the split.
        seeds: that were run.
        models: name -> summary, in the order of the table.
        settings: by name.
        missing: name -> reason.
        order: what says which of two events at the same second came first; empty: nothing does.
        cut_offs: k of Recall@k and NDCG@k, which the summaries hold; empty: they do not.
    """

    dataset: str
    split: str
    is_inner: bool
    facts: dict[str, int]
    seeds: list[int]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    order: str = ""
    cut_offs: tuple[int, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Returns the names of the means over users."""
        return metric_names(self.split, self.cut_offs) if self.cut_offs else []

    def json_line(self) -> str:
        """Returns the report as one line of JSON: the models by name, and how they were run."""
        about = {
            "dataset": self.dataset,
            "split": self.split,
            "inner": self.is_inner,
            "sizes": self.facts,
            "seeds": self.seeds,
            "settings": self.settings,
            "missing": self.missing,
            "order": self.order,
        }
        return json.dumps({**{name: self._named(found) for name, found in self.models.items()}, **about})

    def text(self) -> str:
        """Returns the report as a heading and a Markdown table."""
        sizes = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.facts.items())
        inner = " (inner: to choose settings on)" if self.is_inner else ""
        order = f"; events of one second as {self.order}" if self.order else ""
        heading = f"{self.dataset}, {self.split}{inner}: {sizes}{order}; seeds {', '.join(map(str, self.seeds))}"
        absent = [f"{name}: {why}" for name, why in self.missing.items()]
        means = ["", *self._means_table()] if self.cut_offs else []
        return "\n".join([heading, "", *table(self.models), *means, *(["", *absent] if absent else [])])

    def _named(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a summary whose means have names."""
        return {**found, "means": dict(zip(self.metrics, found["means"], strict=True))} if "means" in found else dict(found)

    def _means_table(self) -> list[str]:
        """Returns the means over users as a Markdown table, published ones last."""
        lines = [f"| seen items left out | {' | '.join(self.metrics)} |", f"|---|{'---|' * len(self.metrics)}"]
        published = {} if self.is_inner else PUBLISHED.get((self.dataset, self.split), {})
        rows = {name: self._named(found)["means"] for name, found in self.models.items()}
        for name, row in [*rows.items(), *((f"published: {name}", row) for name, row in published.items())]:
            lines.append(f"| {name} | {' | '.join(f'{row[key]:.4f}' if key in row else '' for key in self.metrics)} |")
        return lines


def table(models: Mapping[str, Mapping[str, Any]], first: str = "model") -> list[str]:
    """Returns a Markdown table, a line each: mean ± spread over seeds, in brackets the standard error over users."""
    lines = [
        f"| {first} | hit_rate@200 filtered | unfiltered | samples per CPU-second |",
        "|---|---|---|---|",
    ]
    for name, found in models.items():
        cells = [name, _rate(found[FILTERED]), _rate(found[UNFILTERED]), f"{found['samples_per_cpu_s']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _rate(rate: Mapping[str, float | None]) -> str:
    spread = "" if rate["sd"] is None else f" ± {rate['sd']:.4f}"
    return f"{rate['hit_rate@200']:.4f}{spread} ({rate['se']:.4f})"
