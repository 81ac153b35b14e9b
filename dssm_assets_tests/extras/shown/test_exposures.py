"""What was shown and not taken trains as hard negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.errors import ConfigError, WindowIncompleteError
from dssm_assets.core.file_names import TrainSamplesFile
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import all_rows, expiring_groups
from dssm_assets.defs.run_plan import Wanted, plan_missing
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.installed_extras import load_extra
from dssm_assets.steps.training import train_samples
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.shown import shop_log
from dssm_assets_tests.extras.shown.shop_log import answer, write_part
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOW_DAYS

CHANGES: dict[str, Any] = worlds.merged(
    shop_log.CONFIG, {"events": {"exposure": ["shown"]}, "model": {"sampler": "hard", "num_hard_sample": 4}}
)
LAST = len(DAYS) - 1


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Returns the tiny world; people of group a were shown items of group b on the last two days of the window, and one they take."""
    target = tmp_path_factory.mktemp("exposures") / "world"
    loaded = worlds.built_world(tmp_path_factory).copy(target, CHANGES)
    for day in (LAST - 2, LAST - 1):
        for user in ("a0", "a1"):
            items = [f"b_0{day % 10}", worlds.bought(user, day)[0], "no_item"]
            write_part(loaded, answer(f"{user}-{day}", user, items, worlds.start_ms(day) + 5))
        write_part(loaded, answer(f"{day}", None, ["b_09"], worlds.start_ms(day) + 6))
    return open_workspace(loaded)


def test_days_of_the_window_are_made_first(workspace: Workspace) -> None:
    with pytest.raises(WindowIncompleteError, match="materialize shown"):
        list(train_samples(workspace, [EVALUATION_DAY]))
    plan = plan_missing(Scene(workspace.loaded), Wanted(("train_samples",), (EVALUATION_DAY,)))
    made = {ds for run in plan.runs if "shown" in run.names for ds in run.days}
    assert sorted(made) == DAYS[LAST - WINDOW_DAYS : LAST]


@needs_extras("sampler_tables")
def test_what_was_shown_and_not_taken_is_a_hard_negative(workspace: Workspace, tmp_path: Path) -> None:
    list(shown(workspace, DAYS[LAST - WINDOW_DAYS : LAST]))
    (result,) = train_samples(workspace, [EVALUATION_DAY])
    files = (TrainSamplesFile.USERS, TrainSamplesFile.HARD_NEGATIVES)
    users, hard = (workspace.artifacts.map_table(result.manifest, name) for name in files)
    corpus = workspace.tables.read(workspace.need("negative_items", EVALUATION_DAY))["item_id"].to_pylist()
    names = users["user_id"].to_pylist()
    pairs = [(names[row["user_index"]], corpus[row["item_index"]]) for row in hard.to_pylist()]
    assert sorted(pairs) == [(user, f"b_0{day}") for user in ("a0", "a1") for day in (0, 9)]
    assert {f"shown/{ds}" for ds in DAYS[LAST - WINDOW_DAYS : LAST]} <= set(result.manifest.inputs)
    counts, _ = load_extra("sampler_tables", "sampler_tables").write_sampler_tables(workspace, EVALUATION_DAY, tmp_path)
    assert counts["hard_edges"] == 6, "with the item that is no item of the corpus"


def test_assets_exist_only_if_their_keys_are_there(workspace: Workspace, tmp_path: Path) -> None:
    plain = {row.name for row in all_rows()}
    assert {row.name for row in all_rows(workspace.config)} - plain == {"shown", "online_rates"}
    assert {"shown", "online_rates"} & expiring_groups().keys() == {"online_rates"}
    log_alone = worlds.write_config(tmp_path, {"serving": {"shown": {}}})
    assert {row.name for row in all_rows(log_alone.config)} - plain == {"shown"}
    jobs = scene_definitions(Scene(log_alone), Observer()).resolve_job_def("online")
    assert [node.name for node in jobs.nodes] == ["shown"]
    assert not [
        job.name
        for job in scene_definitions(Scene(worlds.write_config(tmp_path)), Observer()).jobs or ()
        if job.name == "online"
    ]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"events": {"exposure": ["shown"]}}, r"events\.exposure"),
        ({"events": {"exposure": ["shown"]}, "serving": {"shown": {"keep_days": 5}}}, r"serving\.shown\.keep_days"),
    ],
)
def test_exposures_need_a_log_that_is_long_enough(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        worlds.write_config(tmp_path, changes)
