"""The step of the asset `feature_importance`: fits a day's towers with all features, then once without each group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.features.spec import FgSpec
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.progress import count_progress
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.extras.feature_importance.feature_importance import FeatureWorth, leave_out_groups
from dssm_assets.steps.dssm_model import open_train_data
from dssm_assets.steps.feature_config import RunSettings, towers_of
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, each_day

ALL_FEATURES = "all features"
TABLE = TableSpec(
    name="feature_importance",
    grain="one row per group of features that was left out, and one for all features",
    key=("without",),
    columns=(
        ColumnSpec("without", pa.string(), f"Group of features left out of the towers. `{ALL_FEATURES}`: none was left out."),
        ColumnSpec("features", pa.list_(pa.string()), "The features of the group."),
        ColumnSpec("hit_rate", pa.float64(), "Hit rate on the validation days at the largest k, over all items."),
        ColumnSpec(
            "hit_rate_new", pa.float64(), "Hit rate over items new to the user. The lists leave out the user's history.", True
        ),
        ColumnSpec(
            "hit_rate_cold", pa.float64(), "Hit rate over items without an earlier event. The lists hold only these.", True
        ),
        *(
            ColumnSpec(f"pairs{scope}", pa.int64(), f"Number of (user, item) pairs behind hit_rate{scope}.")
            for scope in ("", "_new", "_cold")
        ),
    ),
)


@each_day
def feature_importance(workspace: Workspace, ds: str) -> StepResult:
    """Measures the feature groups on the day's validation days.

    Raises:
        ConfigError: there are no validation days.
    """
    settings, samples = towers_of(workspace, ds), workspace.need("train_samples", ds)
    if not settings.training.validation_days:
        expected, remedy = "validation days, because features are compared on them", "set it to 1 or more"
        raise ConfigError(Fault("training.validation_days", expected, "0", remedy))
    columns = {
        side: frozenset(column.name for column in workspace.need(f"{side}_table", day_before(ds)).columns)
        for side in (TowerSide.USER, TowerSide.ITEM)
    }
    k, groups = workspace.config.evaluation.k[-1], feature_groups(settings, workspace.fg_spec, columns)
    found, count_fits = list[FeatureWorth](), count_progress(workspace.log, workspace.now, 1 + len(groups), "fits")
    for worth in leave_out_groups(
        lambda spec: open_train_data(workspace, samples, spec),
        settings.spec,
        groups,
        model=settings.model,
        training=settings.training,
        seed=settings.seed,
        k=k,
    ):
        found.append(worth)
        count_fits(1)
    table = pa.Table.from_pylist(
        [{"without": worth.group or ALL_FEATURES, **asdict(worth)} for worth in found],
        schema=TABLE.schema,
    ).sort_by("without")
    manifest = workspace.write_table(TABLE, ds, table, [samples, settings.manifest])
    return StepResult(manifest, {"groups": len(found) - 1}, report_markdown=importance_markdown(found, k))


def feature_groups(settings: RunSettings, fg: FgSpec, columns: dict[TowerSide, frozenset[str]]) -> dict[str, tuple[str, ...]]:
    """Returns group -> the names of its features, in the order of the towers.

    A user or item feature is an attribute if it reads only columns of the source table. It is a statistic if it also reads
    columns computed from the log. The closed-form embedding is in no group, because towers without it are another kind of
    model. A group is not measured if a tower would have no features without it.
    """
    start = settings.training.svd_init
    fixed = {settings.model.frozen_embedding, None if start is None else start.embedding}
    groups: dict[str, list[str]] = {}
    for feature in settings.spec.features:
        if feature.embedding_name in fixed:
            continue
        group = str(feature.side)
        if feature.side in columns:
            is_own = columns[feature.side].issuperset(fg.feature(feature.name).inputs)
            group = f"{group} {'attributes' if is_own else 'statistics'}"
        groups.setdefault("history" if feature.side is TowerSide.SEQUENCE else group, []).append(feature.name)
    return {group: tuple(names) for group, names in groups.items() if _leaves_both_towers(settings.spec, set(names))}


def _leaves_both_towers(spec: TowerSpec, left_out: set[str]) -> bool:
    sides = {feature.side for feature in spec.features if feature.name not in left_out}
    return TowerSide.ITEM in sides and len(sides) > 1


def importance_markdown(worths: Sequence[FeatureWorth], k: int) -> str:
    """Writes a markdown table: the hit rates with all features, and how much they fall without each group."""
    whole = worths[0]
    lines = [
        f"hit_rate@{k} on the validation days, of towers that were not trained on them. With all features: the rate. Without a "
        "group: how much it falls (a negative number: the towers are better without). One seed. "
        f"Pairs of user and item: {whole.pairs:,} in all, {whole.pairs_new:,} new, {whole.pairs_cold:,} cold. "
        "A difference of less than about 1 / sqrt(pairs) is noise.",
        "",
        "| without | features | all items | new to the user | items without any event |",
        "|---|---|---|---|---|",
    ]
    for worth in worths:
        cells = []
        for name in ("hit_rate", "hit_rate_new", "hit_rate_cold"):
            rate, of_all = getattr(worth, name), getattr(whole, name)
            cells.append("" if rate is None or of_all is None else f"{rate:.4f}" if worth is whole else f"{of_all - rate:+.4f}")
        lines.append(f"| {worth.group or ALL_FEATURES} | {len(worth.features) or ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
