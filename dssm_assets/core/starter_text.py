"""The starter configuration as YAML text, every choice with what it was made from beside it.

Belongs here: the words. Does not belong here: the choices (`starter.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from dssm_assets.core.sources.column_profile import ColumnProfile
from dssm_assets.core.starter import CONSTANT_EVENT, FG_FILE, Found, Source, left_out


def config_text(found: Found) -> str:
    """Returns the configuration as a YAML file."""
    facts, roles = found.facts, found.roles
    lines = [
        "# Written by `dssm-assets init` after a look at the tables. Every choice below is a guess with its reason beside it:",
        "# read it once from top to bottom. Then: dssm-assets validate --config THIS_FILE",
        f"name: {found.name}",
        "",
        "calendar:",
        f"  start: {facts.first}           # the log's first day",
        f"  end: {facts.last}             # its last day; remove the line for a log that goes on (then: up to yesterday)",
        f"  timezone: {found.timezone}             # in which days, hours and weekdays are counted",
        "",
        "tables:",
        *_table("user", found.user, {"user_id": roles.user_key}),
        *_table("item", found.item, {"item_id": roles.item_key}),
        *_log(found),
        "",
        "events:",
        *(f"  # {event}: {count:,} rows" for event, count in facts.events.items()),
        f"  funnel: {_list(found.funnel)}      # from the widest to the narrowest",
        f"  positive: {_list(found.positive)}    # what is trained on and scored: decide this one yourself",
    ]
    if found.exposure:
        lines.append(f"  exposure: {_list(found.exposure)}    # shown, not necessarily wanted")
    lines += [
        "",
        "window:",
        f"  days: {found.window_days}                    # days that an evaluation day learns from; {facts.days} days are there",
        "",
        "raw_features:",
        "  statistic_days: [1, 7, 30]  # windows of counts, e.g. user:" + f"{_plain(found.positive[-1])}_count_7d",
        f"  history_columns: {_list(found.history)}   # item columns beside each item of a user's history",
        "  preference_columns: []      # item columns for which users get value -> count, read by lookup_feature",
        "",
        "features:",
        f"  fg_path: {FG_FILE}            # docs/feature_generation.md; statistics of users and items are named there too",
        *_not_features("user", found.user.rest(roles.user_key)),
        *_not_features("item", found.item.rest(roles.item_key)),
        "",
        "model: {output_dim: 64, hidden_units: [128], temperature: 0.1, history_length: 50, num_sample: 1024}",
        f"training: {{epochs: 5, batch_size: {_batch_size(found)}}}",
        f"evaluation: {{k: {_cut_offs(found)}}}",
        "",
        "# storage: {root: 's3://bucket/prefix'}     # default: the folder `tables` in the home folder",
        "# platform: {owners: ['team:recommendation'], trigger: schedule, schedule_at: '03:00'}",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table(side: str, source: Source, columns: dict[str, str]) -> list[str]:
    mapped = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    lines = [
        f"  {side}:                       # {source.columns[0].rows:,} rows" if source.columns else f"  {side}:",
        f"    uri: {_scalar(source.uri)}",
        f"    format: {source.format}",
        f"    layout: {source.layout}",
    ]
    return [*lines, f"    columns: {_map(mapped)}"] if mapped else lines


def _log(found: Found) -> list[str]:
    roles = found.roles
    columns = {"user_id": roles.user_id, "item_id": roles.item_id, "event_time": roles.event_time}
    if roles.event is not None:
        columns["event"] = roles.event
    lines = _table("behavior", found.log, columns)
    if roles.event is None:
        lines.append(
            f"    constant_event: {CONSTANT_EVENT}          # no column of event names was found: every row is one of these"
        )
    if found.values:
        lines.append(f"    value_columns: {_list(found.values)}    # numbers that are summed per user and item")
    if found.contexts:
        lines.append(f"    context_columns: {_list(found.contexts)}  # keep only what is known when items are asked for")
    if found.facts.empty_days:
        lines.append(
            f"    allow_empty_days: true    # {found.facts.empty_days} days have no rows: is that so, or is data missing?"
        )
    return lines


def _not_features(side: str, columns: Sequence[ColumnProfile]) -> list[str]:
    return [f"  # no feature of {side}.{told}" for told in left_out(columns)]


def _batch_size(found: Found) -> int:
    rows = sum(found.facts.events[event] for event in found.positive) * found.window_days / found.facts.days
    return 1024 if rows >= 100_000 else 256


def _cut_offs(found: Found) -> list[int]:
    items = found.item.columns[0].rows if found.item.columns else 0
    return [k for k in (10, 50, 100, 200) if k < items] or [max(1, items // 2)]


def _plain(event: str) -> str:
    return event.replace("\n", " ")


def _scalar(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_scalar, texts)) + "]"


def _map(texts: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {_scalar(value)}" for key, value in texts.items()) + "}"
