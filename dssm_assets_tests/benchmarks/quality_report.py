"""The table of a comparison and its one JSON line.

Belongs here: text. Does not belong here: figures (`quality_scores.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """

    dataset: str
    split: str
    is_inner: bool
    facts: dict[str, int]
    seeds: list[int]
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

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
        }
        return json.dumps({**self.models, **about})

    def text(self) -> str:
        """Returns the report as a heading and a Markdown table."""
        sizes = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.facts.items())
        inner = " (inner: to choose settings on)" if self.is_inner else ""
        heading = f"{self.dataset}, {self.split}{inner}: {sizes}; seeds {', '.join(map(str, self.seeds))}"
        absent = [f"{name}: {why}" for name, why in self.missing.items()]
        return "\n".join([heading, "", *table(self.models), *(["", *absent] if absent else [])])


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
