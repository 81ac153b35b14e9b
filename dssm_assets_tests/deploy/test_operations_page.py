"""docs/operations.md quotes the library exactly: each error is raised here. Files that it and docs/deployment.md name exist."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import patch

import pytest

from dssm_assets.core.errors import ConfigError, DssmError, StorageError
from dssm_assets.core.sources.normalise import empty_day_fault
from dssm_assets.service.bundle import bundle_store as bundles
from dssm_assets.service.bundle.bundle_store import BundleStore, after_publish
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests.deploy.compose_file import DEPLOY, raw

DOCS = DEPLOY.parent / "docs"
PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
DEPLOYMENT = (DOCS / "deployment.md").read_text(encoding="utf-8")
QUOTED = [text.strip() for text in re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)]


def _missing_day(folder: Path) -> None:
    PartitionStore(str(folder)).need_all("sample", ["2026-01-03", "2026-01-04"])


def _moving_pointer(folder: Path) -> None:
    store = BundleStore("memory://unused")
    store._pointer_path = "s3://dssm/serving/current.json"
    with patch.object(bundles, "put_if", return_value=False):
        store.replace_pointer(lambda before: after_publish(before, "b", "2026-01-01"))


RAISING = (
    _missing_day,
    _moving_pointer,
)


def test_every_quoted_error_is_raised_by_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    messages = [str(empty_day_fault("2026-01-05"))]
    for fail in RAISING:
        with pytest.raises(DssmError) as caught:
            fail(tmp_path)
        assert isinstance(caught.value, ConfigError | StorageError | DssmError)
        messages.append(str(caught.value))
    assert set(messages) <= set(QUOTED)


def test_every_named_file_exists() -> None:
    root = DEPLOY.parent
    named = set(re.findall(r"(?<![\w./])((?:deploy|dssm_assets)/[\w./-]+\w)", PAGE + DEPLOYMENT)) - {"deploy/.env"}
    assert {"deploy/docker-compose.yaml", "deploy/kubernetes/values.yaml"} <= named
    assert [path for path in sorted(named) if not (root / path).exists()] == []
    assert (root / "deploy" / ".gitignore").read_text(encoding="utf-8").split() == [".env"]


def test_updates_and_restarts_name_every_service_that_they_concern() -> None:
    bodies = raw()["services"]
    reading = [name for name, body in bodies.items() if "./config:/opt/dssm/config:ro" in body.get("volumes", [])]
    assert f"`docker compose restart {' '.join(reading)}`" in DEPLOYMENT
    profiles = " ".join(f"--profile {name}" for body in bodies.values() for name in body.get("profiles", []))
    assert f"`docker compose build && docker compose {profiles} up -d`" in DEPLOYMENT
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}
    deployed = [f"`{name}`" for name, text in texts.items() if "kind: Deployment\n" in text]
    assert f"set a new tag in {' and '.join(deployed)}:" in DEPLOYMENT
