"""Writes item vectors of generated items, in parts or whole; `vectors.py` runs it in a process of its own.

The item tower has one id feature of width 32 and one hidden layer of 64.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

from dssm_assets_tests.benchmarks.process_cost import measured

PART_ROWS = 131_072
"""Rows of a part, as the table store reads them."""
BATCH_ROWS = 4096


def write_vectors(items: int, dims: int, is_whole: bool) -> dict[str, float]:
    """Returns rows per second, and peak resident memory before and while the vectors are computed, in MiB."""
    import numpy as np
    import pyarrow as pa
    import torch

    from dssm_assets.core.config.model import Model
    from dssm_assets.core.evaluation.evaluation_tables import ITEM_VECTORS
    from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
    from dssm_assets.core.models.two_tower import TwoTower
    from dssm_assets.core.retrieval.structure import VectorStructure
    from dssm_assets.core.training.inference import ItemInference
    from dssm_assets.storage.partitions import PartitionStore
    from dssm_assets.storage.tables import TableStore

    torch.set_num_threads(1)
    sides = {"item": TowerSide.ITEM, "user": TowerSide.USER}
    features = [
        TowerFeature(name=name, side=side, embedding_name=name, embedding_dim=32, num_embeddings=10_000, is_multi=False)
        for name, side in sides.items()
    ]
    spec = tower_spec(features, Model(output_dim=dims, hidden_units=[64], history_length=0))
    inference = ItemInference(TwoTower(spec, torch.Generator().manual_seed(1)), BATCH_ROWS)
    index = np.random.default_rng(1).integers(0, 10_000, items, dtype=np.int32)
    table, ids = pa.table({"item": index}), pa.array(np.arange(items))
    schema = pa.schema([("item_id", pa.int64()), ("item_tower_emb", pa.list_(pa.float32(), dims))])
    structure = VectorStructure(width=dims, expected_row_count=items)

    def parts(size: int) -> Iterator[pa.RecordBatch]:
        for begin in range(0, items, size):
            vectors = inference.vectors(table.slice(begin, size))
            column: Any = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dims)
            part = ids.slice(begin, size)
            structure.check_rows(part, column)
            yield pa.RecordBatch.from_arrays([part, column], schema=schema)

    with tempfile.TemporaryDirectory() as folder:
        store = TableStore(PartitionStore(folder))
        with measured("before") as before:
            inference.vectors(table.slice(0, BATCH_ROWS))
        with measured("vectors", items) as cost:
            store.write(ITEM_VECTORS, "2024-01-01", parts(items if is_whole else PART_ROWS), schema=schema)
            assert structure.report().passed
    return {"rows_per_s": items / cost.wall_s, "before_mib": before.peak_mib, "peak_mib": cost.peak_mib}
