"""The reference of configuration keys: current, complete."""

from __future__ import annotations

import pytest

from dssm_assets.cli import main
from dssm_assets_tests.core.config.reference import PAGE, configuration_page


def test_page_in_docs_is_current_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "run: python -m dssm_assets_tests.core.config.reference"
    assert main(["configuration"]) == 0
    assert capsys.readouterr().out == configuration_page()


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in configuration_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 130
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize(
    "row",
    [
        "| `seed` | integer, ≥0, <9223372036854775808 | `17` | Seed of everything random. The same seed gives the same bytes. |",
        '| `timezone` | text | `"UTC"` | Time zone of days, hours and weekdays: a name such as Asia/Shanghai. |',
        "| `layout` | [Layout](#layout) | `snapshot` | How the table is divided into days. |",
        "| `hidden_units` | list of integer ≥1, ≤65536 | `[128]` | Widths of each tower's hidden layers, the first one first. |",
        "| `sampler` | [Sampler](#sampler) or text | `weighted` | A built-in sampler, or one that a plug-in registers. |",
        "- `ds_folders`: One folder per day, named `ds=YYYY-MM-DD` or `ds=YYYYMMDD`; of sql, delta and iceberg, the column `ds`.",
        "## `statistics.features.<name>`",
        "## `model.poolings[]`",
    ],
)
def test_page_shows_type_default_and_meaning(row: str) -> None:
    assert row in configuration_page().splitlines()
