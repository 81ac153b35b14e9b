"""The asset `cleanup`, which removes expired partitions and leftovers and reports each asset's bytes; the job `forget`."""

from collections import Counter
from typing import Final

import dagster as dg

from dssm_assets.defs.asset_table import PUBLISHING_GROUP
from dssm_assets.defs.scene import Scene

_IDS: Final = (
    "Path of a text file with one user id per line, on the machine of the run. A relative path starts at the scene's home (DSSM_HOME "
    "or DAGSTER_HOME)."
)


def build(scene: Scene) -> dg.Definitions:
    """Returns a scene's asset `cleanup`, without partitions and inputs, and its job `forget`."""

    @dg.asset(
        key=scene.key("cleanup"),
        group_name=scene.name(PUBLISHING_GROUP),
        description="Removes partitions older than their group's `storage.keep_days`, leftovers of killed runs and replaced files, as the "
        "first run of a day does. Its metadata list the number and bytes of partitions per asset.",
        kinds={"parquet"},
        tags=scene.tags,
        owners=scene.loaded.config.platform.owners,
    )
    def cleanup(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from dssm_assets.extras.retention.leftovers import clean

        sizes, counts = Counter[str](), Counter[str]()
        for leftover in clean(scene.open_workspace(context.log.info)):
            name = leftover.asset or str(leftover.kind)
            sizes[name] += leftover.bytes
            counts[name] += 1
        columns = [dg.TableColumn("what"), dg.TableColumn("removed", "int"), dg.TableColumn("bytes", "int")]
        rows = [dg.TableRecord({"what": name, "removed": counts[name], "bytes": size}) for name, size in sizes.most_common()]
        return dg.MaterializeResult(
            metadata={
                "removed": sum(counts.values()),
                "removed_bytes": sum(sizes.values()),
                "per asset": dg.MetadataValue.table(rows, dg.TableSchema(columns)),
            }
        )

    return dg.Definitions(assets=[cleanup], jobs=[_build_forget(scene)])


def _build_forget(scene: Scene) -> dg.JobDefinition:
    """Returns the job `forget`. It reads the ids from a file, because Dagster stores every text typed into its Launchpad."""

    @dg.op(
        name=scene.name("forget_users"),
        config_schema={
            "user_ids": dg.Field(str, description=_IDS),
            "dry_run": dg.Field(bool, default_value=False, description="Only find the data that would be rewritten."),
        },
    )
    def forget_users(context: dg.OpExecutionContext) -> None:
        from dssm_assets.extras.retention.forget import check_ended, forget
        from dssm_assets.extras.retention.receipt import write_receipt
        from dssm_assets.extras.retention.user_ids import read_user_ids

        workspace, dry_run = scene.open_workspace(context.log.info), context.op_config["dry_run"]
        ids = read_user_ids(scene.loaded.home / context.op_config["user_ids"], workspace)
        receipt = forget(workspace, ids, dry_run=dry_run)
        for line in receipt.describe():
            context.log.info(line)
        where = "none: nothing was written" if dry_run else str(write_receipt(workspace, receipt))
        counts = {"ids": receipt.ids, "ids without rows": receipt.without_rows}
        counts |= {"partitions": len(receipt.partitions), "bundles": len(receipt.bundles)}
        context.add_output_metadata({"receipt": where, **counts})
        if not dry_run:
            check_ended(receipt)

    @dg.job(
        name=scene.name("forget"),
        description="Removes every row of some users, and drops later deliveries of them. The receipt is a file in the home.",
        tags=scene.tags,
    )
    def forget_job() -> None:
        forget_users()

    return forget_job
