"""The overlay: own partitions above, standing ones below, and nothing below is ever written."""

import pyarrow as pa
import pytest

from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.storage.overlay_store import OverlayStore, experiment_names
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore

DAY, LATER = "2024-01-01", "2024-01-02"
SPEC = TableSpec("numbers", "one row per number", ("n",), (ColumnSpec("n", pa.int64(), "A number."),))


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"


def write(store, ds, *numbers):
    return TableStore(store).write(SPEC, ds, pa.table({"n": pa.array(numbers, pa.int64())}))


def read(store, ds):
    return TableStore(store).read(store.manifest("numbers", ds)).column("n").to_pylist()


def test_what_is_not_there_is_read_from_below(root):
    below = PartitionStore(root)
    write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    assert read(above, DAY) == [1, 2]
    assert not above.holds(above.manifest("numbers", DAY))
    with pytest.raises(PartitionMissingError):
        above.manifest("numbers", LATER)


def test_what_is_written_stays_above(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    made = write(above, DAY, 3)
    assert read(above, DAY) == [3]
    assert read(OverlayStore(below, "hot"), DAY) == [3]
    assert above.holds(made)
    assert read(below, DAY) == [1, 2]
    assert below.manifest("numbers", DAY) == standing
    below.verify(standing)


def test_a_standing_manifest_still_leads_to_the_standing_files(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    write(above, DAY, 3)
    assert TableStore(above).read(standing).column("n").to_pylist() == [1, 2]


def test_writing_again_removes_no_file_below(root):
    below = PartitionStore(root)
    standing = write(below, DAY, 1, 2)
    above = OverlayStore(below, "hot")
    for number in (3, 4):
        write(above, DAY, number)
    assert read(above, DAY) == [4]
    below.verify(standing)


def test_days_are_those_of_both(root):
    below = PartitionStore(root)
    write(below, DAY, 1)
    above = OverlayStore(below, "hot")
    write(above, LATER, 2)
    assert above.days("numbers") == [DAY, LATER]
    assert below.days("numbers") == [DAY]


def test_experiments_are_found_by_name_beside_the_days_of_their_table(root):
    below = PartitionStore(root)
    assert experiment_names(below) == []
    for name in ("warm", "hot"):
        write(OverlayStore(below, name), DAY, 1)
    table = TableSpec("experiments", SPEC.grain, SPEC.key, SPEC.columns)
    TableStore(below).write(table, DAY, pa.table({"n": pa.array([1], pa.int64())}))
    assert experiment_names(below) == ["hot", "warm"]
    assert set(below.days("experiments")) == {DAY}
