"""Values of a configuration file replaced in its text, so that comments, order and spacing of everything else stay.

PyYAML's nodes tell where each value begins and ends; the new value is written there, on one line. Comments inside a replaced
list or mapping go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dssm_assets.core.errors import ConfigError, Fault


def edit_yaml(text: str, changes: Mapping[str, Any], note: str) -> str:
    """Returns the text of a YAML file with some values replaced or added.

    Example: `model.prior` = True in "model:\\n  prior: false  # off\\n" gives
    "model:\\n  # <note>; was false\\n  prior: true  # off\\n".

    Args:
        text: a mapping of sections, in block style.
        changes: key `section.name` -> value.
        note: comment above every changed key; empty: none.

    Raises:
        ConfigError: the text cannot be edited so that it has these values, such as one with aliases.
    """
    wanted: dict[str, Any] = yaml.safe_load(text) or {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        text = _set(text, section, name, value, note)
        wanted[section] = {**(wanted.get(section) or {}), name: value}
    if yaml.safe_load(text) != wanted:
        remedy = "write the settings into the file by hand"
        raise ConfigError(Fault("configuration file", "plain YAML without aliases", "text that other keys share", remedy))
    return text


def _set(text: str, section: str, name: str, value: Any, note: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found = _find(root, section)
    if found is None:
        gap = "" if not text or text.endswith("\n") else "\n"
        return f"{text}{gap}\n{section}:\n{_lines('  ', name, value, note)}"
    _, node = found
    if not isinstance(node, yaml.MappingNode):  # `model:` without keys
        start = node.start_mark.index
        return f"{text[:start].rstrip(' ')}\n{_lines('  ', name, value, note)[:-1]}{text[node.end_mark.index :]}"
    child = _find(node, name)
    if node.flow_style:
        return _set_flow(text, node, child, name, value)
    if child is not None:
        key, old = child
        begin, end = old.start_mark.index, _end(old)
        line = text.rfind("\n", 0, key.start_mark.index) + 1
        indent = " " * key.start_mark.column
        before = yaml.safe_load(text[key.start_mark.index : end].expandtabs() or "null")
        shown = _comment(indent, note, _flow(before[name]) if isinstance(before, dict) else "")
        between = text[key.end_mark.index : begin]
        if "\n" in between:  # a block value begins on a line of its own
            between = ": "
        return text[:line] + shown + text[line : key.end_mark.index] + between + _flow(value) + text[end:]
    last_key, last_value = node.value[-1]
    end = text.find("\n", _end(last_value))
    indent = " " * last_key.start_mark.column
    if end < 0:
        return f"{text}\n{_lines(indent, name, value, note)}"
    return f"{text[: end + 1]}{_lines(indent, name, value, note)}{text[end + 1 :]}"


def _set_flow(text: str, node: yaml.MappingNode, child: tuple[Any, Any] | None, name: str, value: Any) -> str:
    if child is not None:
        old = child[1]
        return text[: old.start_mark.index] + _flow(value) + text[old.end_mark.index :]
    close = node.end_mark.index - 1
    comma = ", " if node.value else ""
    return f"{text[:close].rstrip()}{comma}{name}: {_flow(value)}{text[close:]}"


def _find(node: Any, name: str) -> tuple[Any, Any] | None:
    """Returns key and value of a mapping's entry; None without one."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == name:
            return key, value
    return None


def _end(node: Any) -> int:
    """Returns where the text of a node ends; a block ends with its last scalar, not with the comments behind it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    return int(node.end_mark.index)


def _lines(indent: str, name: str, value: Any, note: str) -> str:
    return f"{_comment(indent, note, '')}{indent}{name}: {_flow(value)}\n"


def _comment(indent: str, note: str, before: str) -> str:
    if not note:
        return ""
    return f"{indent}# {note}; was {before}\n" if before else f"{indent}# {note}\n"


def _flow(value: Any) -> str:
    """Returns a value as YAML on one line, quoted so that it can also be within braces, where `:0` has another meaning."""
    text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.strip().removeprefix("[").removesuffix("]")
