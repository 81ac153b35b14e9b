"""The reference of all configuration keys as a Markdown page, generated from the pydantic models.

`dssm-assets configuration` prints it; docs/configuration.md is that output.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from dssm_assets.core.config.features import AS_IN_STATISTICS
from dssm_assets.core.config.pipeline import BehaviorTable, PipelineConfig
from dssm_assets.core.config.section import Section

_HEAD: Final = """# Configuration

Every key of the YAML file with its type, default and meaning. This page is the output of `dssm-assets configuration`; a test
compares the two.

The file is named by `--config` or `DSSM_CONFIG` ([platform.md](platform.md#which-configuration)). Unknown keys are refused, all faults at once;
`dssm-assets validate` compares a configuration with its data. A key without a default is required.
"""

_BOUNDS: Final = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


def configuration_page() -> str:
    """Returns the whole page: one table per section, in the order of the configuration, then the choices of its enums."""
    parts = [_HEAD]
    for path, section in _sections():
        parts.append(_section_text(path, section))
    parts.append("## Choices\n\nWhat the values of keys with named choices mean.\n")
    parts.extend(_choices_text(choices) for choices in _all_choices())
    return "\n".join(parts)


def _sections() -> Iterator[tuple[str, type[Section]]]:
    """Yields each section once with its path, the root first."""
    seen: set[type[Section]] = set()

    def visit(path: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
        if section in seen:
            return
        seen.add(section)
        yield path, section
        for name, key in section.model_fields.items():
            for inner, suffix in _inner_sections(key.annotation):
                yield from visit(f"{path}.{name}{suffix}".removeprefix("."), inner)

    return visit("", PipelineConfig)


def _section_text(path: str, section: type[Section]) -> str:
    keys = {name: key for name, key in section.model_fields.items() if path or not _inner_sections(key.annotation)}
    repeated = {name: told for name, key in keys.items() if (told := _told_in(section, name, key))}
    rows = [_row(name, key) for name, key in keys.items() if name not in repeated]
    title = f"## `{path}`" if path else "## Top level"
    table = "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows)
    also = "".join(
        f"\nAlso, as in `{told}`: {', '.join(f'`{name}`' for name in repeated if repeated[name] == told)}.\n"
        for told in sorted(set(repeated.values()))
    )
    return f"{title}\n\n{_first_paragraph(section)}\n\n{table}\n{also}"


def _told_in(section: type[Section], name: str, key: FieldInfo) -> str:
    """Returns the section whose key of this name has the same meaning, "" for a key with one of its own."""
    if section is BehaviorTable and name not in BehaviorTable.__annotations__:
        return "tables.user"
    return "statistics" if key.description == AS_IN_STATISTICS else ""


def _row(name: str, key: FieldInfo) -> str:
    cells = (
        f"`{name}`",
        ", ".join([_annotation_text(key.annotation), *_bound_texts(key)]),
        _default_text(key),
        key.description or "",
    )
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _bound_texts(key: FieldInfo) -> list[str]:
    return [
        f"{sign} {getattr(limit, name)}" for limit in key.metadata for kind, name, sign in _BOUNDS if isinstance(limit, kind)
    ]


def _annotation_text(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for key in arguments[1:] if isinstance(key, FieldInfo) for limit in _bound_texts(key)]
        return " ".join([_annotation_text(arguments[0]), ", ".join(limits)]).rstrip()
    if origin is list:
        return f"list of {_annotation_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {_annotation_text(arguments[0])} to {_annotation_text(arguments[1])}"
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if arguments:  # a union
        return " or ".join(_annotation_text(each) for each in arguments if each is not NoneType)
    return _class_text(annotation)


def _class_text(annotation: Any) -> str:
    if annotation is Any:
        return "any value"
    if issubclass(annotation, Section):
        return "section"
    name: str = annotation.__name__
    if issubclass(annotation, StrEnum):
        return f"[{name}](#{name.lower()})"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(name, name)


def _default_text(key: FieldInfo) -> str:
    if key.is_required():
        return "required"
    default = key.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Section):
        return "its own defaults"
    if default is None:
        return "none"
    return f"`{default}`" if isinstance(default, StrEnum) else f"`{json.dumps(default, default=_plain)}`"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, Section) else str(value)


def _inner_sections(annotation: Any) -> list[tuple[type[Section], str]]:
    """Returns the sections that a key holds, each with the suffix that its path takes: `[]` in a list, `.<name>` in a mapping."""
    suffix = {list: "[]", dict: ".<name>"}.get(get_origin(annotation), "")
    if isinstance(annotation, type) and not get_args(annotation):
        return [(annotation, "")] if issubclass(annotation, Section) else []
    return [(inner, inner_suffix or suffix) for each in get_args(annotation) for inner, inner_suffix in _inner_sections(each)]


def _all_choices() -> list[type[StrEnum]]:
    found = {
        each.__name__: each
        for _, section in _sections()
        for key in section.model_fields.values()
        for each in _leaves(key.annotation)
        if isinstance(each, type) and issubclass(each, StrEnum)
    }
    return [found[name] for name in sorted(found)]


def _leaves(annotation: Any) -> Iterator[Any]:
    arguments = get_args(annotation)
    if not arguments:
        yield annotation
    for each in arguments:
        yield from _leaves(each)


def _choices_text(choices: type[StrEnum]) -> str:
    """Returns the choices of an enum; the string literal that follows a member in its class body says what it means."""
    body = ast.parse(textwrap.dedent(inspect.getsource(choices))).body[0]
    assert isinstance(body, ast.ClassDef)
    meanings: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            meanings[statement.targets[0].id] = inspect.cleandoc(str(following.value.value)) if is_text else ""  # type: ignore[union-attr]
    lines = []
    for member in choices:
        meaning = " ".join(meanings.get(member.name, "").split())
        lines.append(f"- `{member.value}`" + (f": {meaning}" if meaning else ""))
    return f"### {choices.__name__}\n\n{_first_paragraph(choices)}\n\n" + "\n".join(lines) + "\n"


def _first_paragraph(described: type) -> str:
    return " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
