"""All asset specs and jobs as plain data: the snapshot `asset_graph.json`, and the command that renews it.

After an intended change, renew the file from the project's folder and review the difference:

    python -m dssm_assets_tests.defs.graph
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from dssm_assets.definitions import build_definitions
from dssm_assets_tests import worlds

SNAPSHOT = Path(__file__).with_name("asset_graph.json")


def asset_graph(defs: dg.Definitions) -> dict[str, Any]:
    """Returns asset name -> the properties that users rely on, and job name -> its assets."""
    graph = defs.resolve_asset_graph()
    assets = {
        key.to_user_string(): _asset(defs.resolve_assets_def(key), key)
        for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.to_user_string())
    }
    jobs = {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys)
        for job in defs.resolve_all_job_defs()
        if not job.name.startswith("__")
    }
    return {"assets": assets, "jobs": dict(sorted(jobs.items()))}


def _asset(definition: dg.AssetsDefinition, key: dg.AssetKey) -> dict[str, Any]:
    spec = definition.specs_by_key[key]
    partitions, policy = definition.partitions_def, definition.backfill_policy
    return {
        "group": spec.group_name,
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "kinds": sorted(spec.kinds),
        "owners": list(spec.owners),
        "code_version": spec.code_version,
        "partitions": None
        if partitions is None
        else str(partitions).partition(" End offsetted")[0],  # the offset depends on the current date
        "backfill": None if policy is None else f"{policy.policy_type.name} {policy.max_partitions_per_run or ''}".strip(),
        "checks": {
            check.name: {
                "blocking": check.blocking,
                "description": check.description,
                "has_days": check.partitions_def is not None,
            }
            for check in sorted(definition.check_specs, key=lambda check: check.name)
        },
        "pool": definition.op.pool,
        "tags": {name: tag for name, tag in sorted(spec.tags.items()) if not name.startswith("dagster/")},
        "description": spec.description,
    }


def text(graph: dict[str, Any]) -> str:
    return json.dumps(graph, indent=1, ensure_ascii=False) + "\n"


def tiny_definitions(folder: Path) -> dg.Definitions:
    """Returns the definitions of the tiny world; no data is read."""
    return build_definitions(worlds.write_config(folder))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        SNAPSHOT.write_text(text(asset_graph(tiny_definitions(Path(folder)))), encoding="utf-8")
