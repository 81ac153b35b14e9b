"""Tables written by hand, from positive_sample back to the features it points into, for the tests of window rows.

    user_features_fg   2024-01-01: users 1, 2, 3 with age 10, 20, 30; the days after share one table: 11, 21, 31
    item_features_fg   every day shares one table: items x, y with tags and their weights
    positive_sample    2024-01-01 to -04, day by day (user, item): (1, x) | (3, x), (1, z), (9, y) | (2, y) | (1, x), (2, q)

User 9 and items q and z are unknown; q is not in the corpus either.
"""

import pyarrow as pa

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.fg_tables import ITEM_FEATURES_FG, USER_FEATURES_FG
from dssm_assets.core.samples.history import build_history
from dssm_assets.core.samples.sample_tables import POSITIVE_SAMPLE, SAMPLE_FG
from dssm_assets.core.statistics.bucketizer import BucketFeature
from dssm_assets.steps.training import WindowRows
from dssm_assets.steps.workspace import digests
from dssm_assets_tests.core.samples.worlds import bucketize, history_day, sample_table

DAYS = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
USERS, ITEMS = {1: 0, 2: 1, 3: 2}, {"x": 0, "y": 1}
POSITIVES = {
    DAYS[0]: [(1, "x")],
    DAYS[1]: [(3, "x"), (1, "z"), (9, "y")],
    DAYS[2]: [(2, "y")],
    DAYS[3]: [(1, "x"), (2, "q")],
}
CORPUS = IdIndex(pa.array(["x", "y", "z"]))
NO_HISTORY = build_history(lambda _: [history_day([])], IdIndex(pa.array([0])), bucketize)
TAGS = {
    "tags": pa.array([[5, 6], None], pa.list_(pa.int64())),
    "tags__weights": pa.array([[0.5, 2.0], None], pa.list_(pa.float32())),
}


class FixedBucketizer:
    """A bucketizer that keeps age, tags and hour; the index is value + 1."""

    bucketize = staticmethod(bucketize)

    def __init__(self, *left_out):
        kept = {"age": (Side.USER, False), "tags": (Side.ITEM, True), "hour_bucket": (Side.CONTEXT, False)}
        self.features = tuple(
            BucketFeature(
                name=name,
                side=side,
                kind=Kind.CATEGORICAL,
                is_multi=is_multi,
                is_weighted=is_multi,
                embedding_name=name,
                embedding_dim=4,
                num_embeddings=100,
                hash_bucket_size=99,
            )
            for name, (side, is_multi) in kept.items()
            if name not in left_out
        )


def features(key, ids, ds, **columns):
    return pa.table({key: pa.array(ids), "feature_date": [ds] * len(ids), **columns})


def write_ages(workspace, ds, *values, **how):
    table = features("user_id", [1, 2, 3], ds, age=pa.array(values, pa.int64()))
    return workspace.tables.write(USER_FEATURES_FG, ds, table, **how)


def write_samples(workspace, ds, *, is_known=True, rows=None):
    """Writes sample_fg and positive_sample of a day."""
    made = POSITIVES[ds] if rows is None else rows
    count = len(made)
    previous_day = f"2024-01-{int(ds[-2:]) - 1:02d}"
    table = sample_table([user for user, _ in made], [item for _, item in made])
    added = {
        "user_feature_date": pa.nulls(count, pa.string()),
        "item_feature_date": pa.nulls(count, pa.string()),
        "user_row": pa.array([USERS.get(user) if is_known else None for user, _ in made], pa.int32()),
        "item_row": pa.array([ITEMS.get(item) if is_known else None for _, item in made], pa.int32()),
        "hour_bucket": pa.array(range(20, 20 + count), pa.int64()),
    }
    for name, column in added.items():
        table = table.append_column(name, column)
    built_from = [workspace.need(f"{side}_features_fg", previous_day) for side in ("user", "item")] if is_known else []
    placed = workspace.tables.write(SAMPLE_FG, ds, table, inputs=digests(built_from))
    return workspace.tables.write(POSITIVE_SAMPLE, ds, table, inputs=digests([placed]))


def write_tables(made):
    """Writes every table of every day into a workspace."""
    write_ages(made, DAYS[0], 10, 20, 30)
    first = write_ages(made, DAYS[1], 11, 21, 31, is_shared=True)
    made.tables.partitions.publish_shared(first, DAYS[2])
    first = made.tables.write(ITEM_FEATURES_FG, DAYS[0], features("item_id", ["x", "y"], DAYS[0], **TAGS), is_shared=True)
    for ds in DAYS[1:3]:
        made.tables.partitions.publish_shared(first, ds)
    for number, ds in enumerate(DAYS):
        write_samples(made, ds, is_known=number > 0)


def window_rows(workspace, days=DAYS, bucketizer=None):
    return WindowRows(workspace, workspace.need_all("positive_sample", days), bucketizer or FixedBucketizer())


def open_streams(rows):
    return {
        "samples.arrow": rows.samples(CORPUS, NO_HISTORY),
        "user_rows.arrow": rows.feature_rows("user"),
        "item_rows.arrow": rows.feature_rows("item"),
    }
