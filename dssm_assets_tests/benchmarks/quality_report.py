"""The table of a comparison and its one JSON line.

Belongs here: text. Does not belong here: figures (`quality_scores.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dssm_assets_tests.benchmarks.quality_scores import FILTERED, UNFILTERED

OURS = "dssm-assets"
PUBLISHED: Final[dict[tuple[str, str], dict[str, dict[str, float]]]] = {
    ("ml-1m", "loo"): {
        "SASRec, sampled softmax (HSTU paper)": {"HR@10": 0.2853, "HR@50": 0.5474, "HR@200": 0.7528, "NDCG@10": 0.1603},
        "HSTU (HSTU paper)": {"HR@10": 0.3097, "HR@50": 0.5754, "HR@200": 0.7716, "NDCG@10": 0.1720},
        "HSTU-large (HSTU paper)": {"HR@10": 0.3294, "HR@50": 0.5935, "HR@200": 0.7839, "NDCG@10": 0.1893},
        "HSTU-large (RecTools)": {"HR@10": 0.3642, "HR@50": 0.6194, "HR@200": 0.8031, "NDCG@10": 0.2164},
    }
}
"""Published figures by data set and split: Zhai et al. 2024 (HSTU), and the benchmark of the library RecTools."""


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
        missing: name -> reason.
    """

    dataset: str
    split: str
    is_inner: bool
    facts: dict[str, int]
    seeds: list[int]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def json_line(self) -> str:
        """Returns the report as one line of JSON: the models by name, and how they were run."""
        about = {
            "dataset": self.dataset,
            "split": self.split,
            "inner": self.is_inner,
            "sizes": self.facts,
            "seeds": self.seeds,
            "missing": self.missing,
        }
        return json.dumps({**self.models, **about})

    def text(self) -> str:
        """Returns the report as a heading and a Markdown table."""
        sizes = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.facts.items())
        inner = " (inner: to choose settings on)" if self.is_inner else ""
        heading = f"{self.dataset}, {self.split}{inner}: {sizes}; seeds {', '.join(map(str, self.seeds))}"
        absent = [f"{name}: {why}" for name, why in self.missing.items()]
        means = ["", *self._means_table()] if any("means" in found for found in self.models.values()) else []
        return "\n".join([heading, "", *self._rates_table(), *means, *(["", *absent] if absent else [])])

    def _rates_table(self) -> list[str]:
        """Returns a Markdown table, a line each: mean ± spread over seeds, in brackets the standard error over users."""
        lines = ["| model | hit_rate@200 filtered | unfiltered | samples per CPU-second |", "|---|---|---|---|"]
        for name, found in self.models.items():
            cells = [name, _rate(found[FILTERED]), _rate(found[UNFILTERED]), f"{found['samples_per_cpu_s']:,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def _means_table(self) -> list[str]:
        """Returns the means over users as a Markdown table, published ones last."""
        rows = {name: found["means"] for name, found in self.models.items()}
        metrics = list(next(iter(rows.values())))
        published = {} if self.is_inner else PUBLISHED.get((self.dataset, self.split), {})
        lines = [f"| seen items left out | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
        for name, row in [*rows.items(), *((f"published: {name}", row) for name, row in published.items())]:
            lines.append(f"| {name} | {' | '.join(f'{row[key]:.4f}' if key in row else '' for key in metrics)} |")
        return lines


def _rate(rate: Mapping[str, float | None]) -> str:
    spread = "" if rate["sd"] is None else f" ± {rate['sd']:.4f}"
    return f"{rate['hit_rate@200']:.4f}{spread} ({rate['se']:.4f})"
