"""The overlay store of an experiment over the base store."""

import pyarrow as pa
import pytest

from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage.overlay import OverlayStore, experiment_names
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import verify

DAY, LATER = "2024-01-01", "2024-01-02"
SPEC = TableSpec("numbers", "one row per number", ("n",), (ColumnSpec("n", pa.int64(), "A number."),))


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def write(store, ds, *numbers):
    return TableStore(store).write(SPEC, ds, pa.table({"n": pa.array(numbers, pa.int64())}))


def read(store, ds):
    return TableStore(store).read(store.need("numbers", ds)).column("n").to_pylist()


def test_overlay_reads_missing_partitions_from_the_base(root):
    base = PartitionStore(root)
    write(base, DAY, 1, 2)
    overlay = OverlayStore(base, "hot")
    assert read(overlay, DAY) == [1, 2]
    assert not overlay.is_own(overlay.need("numbers", DAY))
    with pytest.raises(PartitionMissingError):
        overlay.need("numbers", LATER)


def test_overlay_writes_leave_the_base_unchanged(root):
    base = PartitionStore(root)
    existing = write(base, DAY, 1, 2)
    overlay = OverlayStore(base, "hot")
    for number in (3, 4):
        assert overlay.is_own(write(overlay, DAY, number))
    assert read(overlay, DAY) == read(OverlayStore(base, "hot"), DAY) == [4]
    assert (read(base, DAY), base.need("numbers", DAY)) == ([1, 2], existing)
    verify(base, existing)
    assert TableStore(overlay).read(existing).column("n").to_pylist() == [1, 2], "a manifest of the base leads to its files"


def test_overlay_days_are_those_of_both_stores(root):
    base = PartitionStore(root)
    write(base, DAY, 1)
    overlay = OverlayStore(base, "hot")
    write(overlay, LATER, 2)
    assert overlay.days("numbers") == [DAY, LATER]
    assert base.days("numbers") == [DAY]


def test_experiment_names_ignores_the_days_of_the_experiments_table(root):
    base = PartitionStore(root)
    assert experiment_names(base) == []
    for name in ("warm", "hot"):
        write(OverlayStore(base, name), DAY, 1)
    table = TableSpec("experiments", SPEC.grain, SPEC.key, SPEC.columns)
    TableStore(base).write(table, DAY, pa.table({"n": pa.array([1], pa.int64())}))
    assert experiment_names(base) == ["hot", "warm"]
    assert set(base.days("experiments")) == {DAY}
