"""Text tables of negative samplers as files: written from the partitions of a window, and read back as parquet or csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.samples.negatives import HARD_NEGATIVE_COLUMNS, select_exposures
from dssm_assets.extras.sampler_tables.sampler_tables import (
    EDGE_KEYS,
    HARD_EDGE_SPEC,
    POSITIVE_EDGE_SPEC,
    USER_SPEC,
    TsvSpec,
    count_keys,
    drop_positives,
    item_spec,
    items_as_text,
    read_tsv,
    write_tsv,
)
from dssm_assets.steps.workspace import Workspace, window_days
from dssm_assets.storage.files import TableWriter
from dssm_assets.storage.local_files import write_atomic
from dssm_assets.storage.manifest import Manifest

SPECS: Final = {"users": USER_SPEC, "positive_edges": POSITIVE_EDGE_SPEC, "hard_edges": HARD_EDGE_SPEC}
KINDS: Final = ("items", *SPECS)


def write_sampler_tables(workspace: Workspace, ds: str, folder: Path, delimiter: str = ":") -> tuple[dict[str, int], list[str]]:
    """Writes items.txt, users.txt and positive_edges.txt of a day's window, and hard_edges.txt if there are exposure events.

    Returns:
        The rows of each file, and the features in attrs, in their order.

    Raises:
        PartitionMissingError, WindowIncompleteError: negative_items or a day of positive_sample or sample_fg is missing.
        SchemaError: a value that the text format cannot hold.
    """
    days = window_days(ds, workspace.config.window.days)
    items, fields = items_as_text(workspace.tables.read(workspace.need("negative_items", ds)))
    window = workspace.need_all("positive_sample", days)
    users = count_keys(_read_days(workspace, window, [col.USER_ID]), [col.USER_ID])
    positives = count_keys(_read_days(workspace, window, EDGE_KEYS), EDGE_KEYS)
    tables = {
        "items": (items, item_spec(fields, delimiter)),
        "users": (users, USER_SPEC),
        "positive_edges": (positives, POSITIVE_EDGE_SPEC),
    }
    if events := workspace.config.events.exposure:
        samples = _read_days(workspace, workspace.need_all("sample_fg", days), HARD_NEGATIVE_COLUMNS)
        shown = count_keys((select_exposures(day, events) for day in samples), EDGE_KEYS)
        tables["hard_edges"] = drop_positives(shown, positives), HARD_EDGE_SPEC
    else:
        # A file of an earlier call would look like one of this window.
        (folder / "hard_edges.txt").unlink(missing_ok=True)
    for name, (table, spec) in tables.items():
        write_atomic(folder / f"{name}.txt", [write_tsv(table, spec)])
    return {name: table.num_rows for name, (table, _) in tables.items()}, fields


def _read_days(workspace: Workspace, days: Sequence[Manifest], columns: Sequence[str]) -> Iterator[pa.Table]:
    return (workspace.tables.read(day, list(columns)) for day in days)


def read_sampler_table(path: Path, kind: str, attrs: Sequence[str], into: str, delimiter: str = ":") -> int:
    """Reads a text table and writes it to a parquet or csv file; returns its number of rows.

    Args:
        attrs: names of the fields in the attrs of items, in their order.
        into: fsspec URL or path that ends in .parquet, .pq or .csv.

    Raises:
        InputError: the file cannot be read, or `into` not written.
        SchemaError: naming every line that does not have the format.
    """
    spec: TsvSpec = item_spec(attrs, delimiter) if kind == "items" else SPECS[kind]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(Fault(f"text table {path}", "a file that can be read", str(error), "correct the path")) from error
    table = read_tsv(data, spec)
    with TableWriter(into) as writer:
        writer.write(table)
    return int(table.num_rows)
