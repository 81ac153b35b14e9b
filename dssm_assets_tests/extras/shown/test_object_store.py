"""The log on a real S3 server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from dssm_assets.core.hidden_rows import NOBODY
from dssm_assets.extras.shown.log import ANSWER, ShownList, ShownLog
from dssm_assets.extras.shown.log_folder import on_cleaned, open_log
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET
from dssm_assets_tests.extras.shown import shop_log
from dssm_assets_tests.worlds import DAYS, start_ms


def test_what_a_service_writes_becomes_a_day_and_one_part(options: dict[str, Any], tmp_path: Path) -> None:
    changes = worlds.merged(shop_log.CONFIG, {"storage": {"root": f"s3://{BUCKET}/shown", "options": options}})
    loaded = worlds.write_config(tmp_path, changes)
    log, text = open_log(loaded), pa.string()
    for number in range(3):
        writer = ShownLog(log.uri, options, 0.1)
        rows = (["a_00", "a_01"], [0.5, 0.25], [["vectors"], ["vectors", "recent_popularity"]])
        writer.put(ShownList(ANSWER, start_ms(0) + number, f"r{number}", "a0", "control", "b", *rows, text, text))
        writer.close()
    assert (len(log.days()), len(log.parts(log.days()))) == (1, 3)
    workspace = open_workspace(loaded)
    (before,) = shown(workspace, [DAYS[0]])
    on_cleaned(workspace, 0, removes=True)
    assert len(log.parts(log.days())) == 1
    (after,) = shown(workspace, [DAYS[0]])
    assert [file.sha256 for file in after.manifest.files] == [file.sha256 for file in before.manifest.files]
    assert after.facts["lists"] == 3
    (rows_left,) = log.read(log.days(), NOBODY)
    assert rows_left["channels"].to_pylist()[1] == ["vectors", "recent_popularity"]
