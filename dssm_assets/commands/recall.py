"""`dssm-assets recall`: a list of items from the serving bundle, for a user, for features, or for an item.

Belongs here: arguments, where the bundle lies, printing. Does not belong here: what is recalled (`serving/recall_engine.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dssm_assets.storage.layout import serving_root

if TYPE_CHECKING:
    from dssm_assets.serving.recall_engine import Answer, Engine


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    made = commands.add_parser("recall", help="print the items that the serving bundle recalls for a user or an item")
    whom = made.add_argument_group("for whom (features decide over the stored vector of the user)")
    whom.add_argument("--user-id", help="a user; one without stored vector or features gets the popular items")
    whom.add_argument("--features", type=_mapping, help="""a new user as JSON, by input name: '{"age": "25-34"}'""")
    whom.add_argument("--history", type=_mapping, help="the past as JSON lists, oldest first: item_ids, event_times_ms, ...")
    whom.add_argument("--item-id", help="an item: the most similar ones")
    made.add_argument("-k", type=int, default=200, help="length of the list (default: 200)")
    made.add_argument("--exclude", nargs="+", default=[], metavar="ITEM", help="items that must not be in the list")
    made.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    add_bundle_arguments(made)
    made.set_defaults(command=_recall)


def add_bundle_arguments(made: argparse.ArgumentParser) -> None:
    """Adds where the bundle lies and how far it is checked."""
    made.add_argument(
        "--bundle",
        metavar="ROOT",
        help="folder or URL with current.json, or the folder of one bundle (default: serving/ in the configuration's storage)",
    )
    made.add_argument("--no-verify", action="store_true", help="compare the sizes of the bundle's files, not their sha256")


def root_of(parsed: argparse.Namespace) -> tuple[str, Mapping[str, Any]]:
    """Returns where the bundles lie and the options of that filesystem."""
    if parsed.bundle:
        return parsed.bundle, {}
    from dssm_assets.definitions import load_scene

    loaded = load_scene().loaded
    return serving_root(loaded.root), loaded.config.storage.options


def _recall(parsed: argparse.Namespace) -> int:
    from dssm_assets.serving.recall_engine import Engine

    root, options = root_of(parsed)
    answer = _answer(Engine.open(root, options, is_verified=not parsed.no_verify), parsed)
    if parsed.json:
        print(json.dumps(answer.to_dict(), ensure_ascii=False))
    else:
        _print(answer)
    return 0


def _answer(engine: Engine, parsed: argparse.Namespace) -> Answer:
    from dssm_assets.core.errors import Fault, InputError
    from dssm_assets.serving.recall_engine import for_request
    from dssm_assets.serving.requests import Given

    is_user = bool(parsed.user_id is not None or parsed.features or parsed.history)
    if is_user == (parsed.item_id is not None):
        got = "both" if is_user else "neither"
        raise InputError(Fault("arguments", "a user or an item", got, "give --user-id, --features or --history, or --item-id"))
    if parsed.item_id is not None:
        return engine.similar(parsed.item_id, parsed.k, parsed.exclude)
    given = Given(parsed.features or {}, parsed.history or {})
    return for_request(engine, user_id=parsed.user_id, given=given, k=parsed.k, exclude=parsed.exclude)


def _print(answer: Answer) -> None:
    if answer.ignored:
        print(f"no feature reads: {', '.join(map(str, answer.ignored))}")
    print(f"{len(answer.item_ids)} items, source {answer.source.value}, bundle {answer.bundle_id}")
    for place, (item, score) in enumerate(zip(answer.item_ids, answer.scores, strict=True), 1):
        print(f"{place:>5}  {item}  {score:.6g}")


def _mapping(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"no JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise argparse.ArgumentTypeError('expected a JSON object such as {"age": "25-34"}')
    return parsed
