"""The part of Dagster's GraphQL API that an operator's script needs: check the code location, start a backfill, follow it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

LOCATION = "query{workspaceOrError{... on Workspace{locationEntries{name loadStatus locationOrLoadError{__typename}}}}}"
BACKFILL = (
    "mutation($p:LaunchBackfillParams!){launchPartitionBackfill(backfillParams:$p){__typename"
    " ... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}"
)
STATE = (
    "query($id:String!){partitionBackfillOrError(backfillId:$id){__typename ... on PartitionBackfill{status error{message}"
    " runs(limit:100){id status parentRunId tags{key value}}} ... on PythonError{message}}}"
)
PARTITIONS = (
    "query($key:AssetKeyInput!){assetOrError(assetKey:$key){__typename ... on Asset{assetMaterializations(limit:100)"
    "{partition metadataEntries{label ... on TextMetadataEntry{text}}}}}}"
)
RUN = "query($id:ID!){runOrError(runId:$id){__typename ... on Run{status} ... on PythonError{message}}}"


class Client:
    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        """Returns the data of an answer.

        Raises:
            OSError: the webserver does not answer.
            AssertionError: it answers with errors.
        """
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.loads(answer.read())
        assert not found.get("errors"), found["errors"]
        return found["data"]

    def is_loaded(self) -> bool:
        """Tells whether the one code location is loaded without error."""
        entries = self.ask(LOCATION)["workspaceOrError"]["locationEntries"]
        return [(entry["name"], (entry["locationOrLoadError"] or {}).get("__typename")) for entry in entries] == [
            ("dssm_assets", "RepositoryLocation")
        ]

    def backfill(self, assets: Sequence[str], days: Sequence[str]) -> str:
        selection = [{"path": [name]} for name in assets]
        found = self.ask(BACKFILL, p={"assetSelection": selection, "partitionNames": list(days), "tags": []})
        started = found["launchPartitionBackfill"]
        assert started["__typename"] == "LaunchBackfillSuccess", started
        return str(started["backfillId"])

    def state(self, backfill_id: str) -> dict[str, Any]:
        """Returns status, error and runs of a backfill."""
        return dict(self.ask(STATE, id=backfill_id)["partitionBackfillOrError"])

    def run_status(self, run_id: str) -> str:
        """Returns the status of a run.

        Raises:
            AssertionError: the webserver has no such run.
        """
        found = self.ask(RUN, id=run_id)["runOrError"]
        assert found["__typename"] == "Run", f"the webserver has no run {run_id}: {found}"
        return str(found["status"])

    def texts(self, asset: str, label: str) -> dict[str, str]:
        """Returns the text of a metadata entry, by partition, of the materializations of an asset that have it."""
        made = self.ask(PARTITIONS, key={"path": [asset]})["assetOrError"]["assetMaterializations"]
        entries = {one["partition"]: {entry["label"]: entry.get("text") for entry in one["metadataEntries"]} for one in made}
        return {ds: found[label] for ds, found in entries.items() if label in found}

    def runs(self, backfill_id: str, status: str) -> list[str]:
        return [run["id"] for run in self.state(backfill_id)["runs"] if run["status"] == status]


def wait_for(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """Returns what `holds` returns once it is true; retries while a service does not answer.

    Raises:
        AssertionError: it did not become true in time.
    """
    end, last = time.perf_counter() + seconds, ""
    while time.perf_counter() < end:
        try:
            found = holds()
        except (OSError, AssertionError) as error:
            found, last = None, str(error)
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s for {what}. {last}")
