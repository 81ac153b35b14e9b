"""`dssm-assets recall`: items from the serving bundle, for a user, for features, or for an item."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene

if TYPE_CHECKING:
    from dssm_assets.core.config.evaluation import Serving
    from dssm_assets.service.bundle.bundle_store import BundleKeys
    from dssm_assets.service.engine.recall_engine import ItemSearch, RecallAnswer
    from dssm_assets.storage.config_file import LoadedConfig


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "recall", group=Group.SERVE, help="print the items that the serving bundle recalls for a user or an item"
    )
    query = parser.add_argument_group("query (inputs of a stored user that are not given stay as stored)")
    query.add_argument("--user-id", help="a user; without a stored vector or features: the popular items")
    query.add_argument("--features", type=_json_object, help="""a new user as JSON, by input name: '{"age": "25-34"}'""")
    query.add_argument("--history", type=_json_object, help="JSON lists, oldest first: item_ids, event_times_ms, ...")
    query.add_argument("--events", type=_json_object, help="like --history, but added to the stored history")
    query.add_argument("--item-id", help="an item: the most similar items")
    parser.add_argument("-k", type=int, default=200, help="length of the list (default: 200)")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="ITEM", help="items to leave out of the list")
    parser.add_argument("--exclude-history", action="store_true", help="leave out items that the user interacted with before")
    parser.add_argument(
        "--filters", type=parse_json, help="""conditions on columns as JSON: '{"department": "GROCERY", "price": {"max": 5}}'"""
    )
    parser.add_argument(
        "--channels", choices=("merged", "vectors"), help="all channels (default if the bundle has them), or the vectors alone"
    )
    parser.add_argument("--fields", nargs="+", default=[], metavar="COLUMN", help="columns of serving.filters to print")
    parser.add_argument(
        "--explain", action="store_true", help="print the parts of each score of a merged list, and the items that carry it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    add_bundle_arguments(parser)
    parser.set_defaults(command=_recall)


def add_bundle_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that locate the bundle and say how to check it."""
    parser.add_argument(
        "--bundle", metavar="ROOT", help="folder or URL with current.json, or of one bundle (default: serving/ in the storage)"
    )
    parser.add_argument(
        "--store",
        nargs="?",
        const="",
        metavar="URI",
        help="search in a vector store in place of the bundle's index (default: the configuration's store; env:NAME: the URI is in the "
        "environment variable NAME)",
    )
    add_config_arguments(parser)
    checks = parser.add_mutually_exclusive_group()
    checks.add_argument("--no-verify", action="store_true", help="compare only sizes of the bundle's files, not their sha256")
    checks.add_argument(
        "--require-signature",
        metavar="PUBLIC_KEY_FILE",
        help="accept only bundles signed by one of these Ed25519 keys (PEM file); each bundle is copied to TMPDIR",
    )


class BundleLocation(NamedTuple):
    """Root and options of the bundles, the section `serving` (None without a configuration), and keys of required signatures.

    `open_search` opens the search in a vector store. Its second argument is the time limit of a search in seconds.
    """

    root: str
    options: Mapping[str, Any]
    serving: Serving | None
    open_search: Callable[..., ItemSearch] | None
    keys: BundleKeys | None


def bundle_location(parsed: argparse.Namespace, *, is_data: bool = False) -> BundleLocation:
    """Prints the origin of the bundles and settings, then returns them.

    Raises:
        ConfigError: the configuration cannot be loaded or would not be used, or a plug-in cannot be imported.
        InputError: the file of --require-signature has no keys.
    """
    from dssm_assets.core.errors import ConfigError, Fault
    from dssm_assets.installed_extras import load_extra
    from dssm_assets.storage.plugins import import_plugins

    file = parsed.require_signature
    keys: BundleKeys | None = None if file is None else load_extra("signatures", "ed25519").read_public_keys(file)
    if parsed.bundle:
        if parsed.config:
            remedy = "give only --bundle, and lists of the shop with --blocked-items; or give --home in place of --bundle"
            raise ConfigError(Fault("--config", "no --config beside --bundle, which needs none", str(parsed.config), remedy))
        print(f"bundle {parsed.bundle} (--bundle), no configuration", file=sys.stderr if is_data else sys.stdout, flush=True)
        ConfigError.raise_if(import_plugins(()))
        return BundleLocation(parsed.bundle, {}, None, _choose_search(parsed.store, None), keys)
    from dssm_assets.storage.layout import serving_root

    loaded = load_announced_scene(parsed, is_data=is_data).loaded
    search = _choose_search(parsed.store, loaded)
    return BundleLocation(serving_root(loaded.root), loaded.config.storage.options, loaded.config.serving, search, keys)


def _choose_search(uri: str | None, loaded: LoadedConfig | None) -> Callable[..., ItemSearch] | None:
    """Returns a function that opens the search in the vector store of --store; "" means the configuration's store."""
    if uri is None:
        return None
    from dssm_assets.installed_extras import load_extra

    open_search: Callable[..., ItemSearch] = load_extra("vector_stores", "search").choose_search(uri, loaded)
    return open_search


def _recall(parsed: argparse.Namespace) -> int:
    from dssm_assets.service.engine.recall_engine import ListOptions, Lists, recall_once
    from dssm_assets.service.engine.request_encoder import UserInputs

    location = bundle_location(parsed, is_data=parsed.json)
    lists = None if parsed.channels is None else Lists(parsed.channels)
    answer = recall_once(
        location.root,
        location.options,
        location.serving,
        user_id=parsed.user_id,
        inputs=UserInputs(parsed.features or {}, parsed.history or {}, parsed.events or {}),
        item_id=parsed.item_id,
        options=ListOptions(
            parsed.k, parsed.exclude, parsed.filters, parsed.exclude_history, lists, parsed.fields, parsed.explain
        ),
        is_verified=not parsed.no_verify,
        open_search=location.open_search,
        keys=location.keys,
    )
    if parsed.json:
        print(json.dumps(answer.to_dict(), ensure_ascii=False))
    else:
        _print_answer(answer)
    return 0


def _print_answer(answer: RecallAnswer) -> None:
    if answer.ignored:
        print(f"ignored, because nothing reads them: {', '.join(map(str, answer.ignored))}")
    if answer.replaced:
        print(f"used in place of the stored inputs: the given {' and '.join(answer.replaced)}")
    print(f"{len(answer.item_ids)} items, source {answer.source.value}, bundle {answer.bundle_id}")
    names = ["item", "score", *([] if answer.sources is None else ["channels"]), *(answer.fields or {})]
    names += [] if answer.reasons is None else ["why"]
    columns = [answer.item_ids, [f"{score:.6g}" for score in answer.scores]]
    columns += [] if answer.sources is None else [[", ".join(channels) for channels in answer.sources]]
    columns += (answer.fields or {}).values()
    columns += [] if answer.reasons is None else [[one.describe() for one in answer.reasons]]
    for rank, row in enumerate([names, *zip(*columns, strict=True)]):
        print(f"{rank or 'rank':>5}  {'  '.join('' if value is None else str(value) for value in row)}".rstrip())


def parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error


def _json_object(text: str) -> dict[str, Any]:
    parsed = parse_json(text)
    if not isinstance(parsed, dict):
        raise argparse.ArgumentTypeError('expected a JSON object such as {"age": "25-34"}')
    return parsed
