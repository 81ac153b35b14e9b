"""The samplers' text tables in files: written of a window, and read back to tables of any kind that fsspec reaches.

Belongs here: reading partitions, writing files. Does not belong here: the rows (`core/samples/sampler_tables`) and their text
(`core/samples/sampler_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.samples import sampler_tables
from dssm_assets.core.samples.negatives import HARD_NEGATIVE_COLUMNS, select_exposures
from dssm_assets.core.samples.sampler_tables import (
    HARD_EDGE_SPEC,
    POSITIVE_EDGE_SPEC,
    USER_SPEC,
    TsvSpec,
    item_spec,
    read_tsv,
    write_tsv,
)
from dssm_assets.steps.workspace import Workspace, window_days
from dssm_assets.storage.files import TableWriter
from dssm_assets.storage.local_files import write_atomic

FORMS = {"users": USER_SPEC, "positive_edges": POSITIVE_EDGE_SPEC, "hard_edges": HARD_EDGE_SPEC}
KINDS = ("items", *FORMS)


def write_sampler_tables(workspace: Workspace, ds: str, folder: Path, delimiter: str = ":") -> tuple[dict[str, int], list[str]]:
    """Writes items.txt, users.txt, positive_edges.txt and, where events.exposure names events, hard_edges.txt of a day's window.

    Returns:
        The rows of each file, and the features in attrs, in their order.

    Raises:
        PartitionMissingError, WindowIncompleteError: negative_items or a day of positive_sample or sample_fg is missing.
        SchemaError: a value that the text form cannot hold.
    """
    days = window_days(ds, workspace.config.window.days)
    items, fields = sampler_tables.items_as_text(workspace.tables.read(workspace.need("negative_items", ds)))
    window = workspace.need_all("positive_sample", days)
    users, taken = (
        sampler_tables.count_keys((workspace.tables.read(day, list(keys)) for day in window), keys)
        for keys in ((col.USER_ID,), sampler_tables.EDGE_KEYS)
    )
    written = {"items": (items, item_spec(fields, delimiter)), "users": (users, USER_SPEC)}
    written["positive_edges"] = taken, POSITIVE_EDGE_SPEC
    events = workspace.config.events.exposure
    if events:
        samples = (workspace.tables.read(day, list(HARD_NEGATIVE_COLUMNS)) for day in workspace.need_all("sample_fg", days))
        shown = sampler_tables.count_keys((select_exposures(day, events) for day in samples), sampler_tables.EDGE_KEYS)
        written["hard_edges"] = sampler_tables.drop_positives(shown, taken), HARD_EDGE_SPEC
    else:
        (folder / "hard_edges.txt").unlink(missing_ok=True)  # of an earlier call: it would pass for this day's
    for name, (table, form) in written.items():
        write_atomic(folder / f"{name}.txt", [write_tsv(table, form)])
    return {name: table.num_rows for name, (table, _) in written.items()}, fields


def read_sampler_table(path: Path, kind: str, attrs: Sequence[str], into: str, delimiter: str = ":") -> int:
    """Reads a text table of that kind and writes it to a parquet or csv file; returns its rows.

    Args:
        path: the text.
        kind: one of KINDS.
        attrs: names of the fields in the attrs of items, in their order.
        into: fsspec URL or path that ends in .parquet, .pq or .csv.
        delimiter: between the fields.

    Raises:
        InputError: the file cannot be read, or `into` not written.
        SchemaError: naming every line that is not of the form.
    """
    form: TsvSpec = item_spec(attrs, delimiter) if kind == "items" else FORMS[kind]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(Fault(f"text table {path}", "a file that can be read", str(error), "correct the path")) from error
    table: pa.Table = read_tsv(data, form)
    with TableWriter(into) as writer:
        writer.write(table)
    return int(table.num_rows)
