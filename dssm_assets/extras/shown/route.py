"""POST /shown: what was shown in place of an answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from pydantic import Field

from dssm_assets.core.config.section import Section
from dssm_assets.extras.shown.served import MOST_ANSWERS, REPLACE_SECONDS, ShownAnswers
from dssm_assets.service.engine.recall_engine import MAX_K
from dssm_assets.service.http.answers import describe_refusals
from dssm_assets.service.http.request_body import parse_body


class ShownRequest(Section):
    """Body of POST /shown."""

    request_id: str = Field(max_length=200, description="Of the answer, as it names it.")
    item_ids: list[int | str] = Field(min_length=1, max_length=MAX_K, description="The items that were shown, in their order.")


def add_route(
    router: APIRouter, receive_body: Callable[[Request], AbstractAsyncContextManager[bytearray]], hook: ShownAnswers
) -> None:
    """Adds the route to the router of lists, whose routes read their bodies."""
    text = (
        f"Replaces the items of an answer by those shown, once; for {REPLACE_SECONDS / 60:g} minutes, of the last {MOST_ANSWERS} "
        "answers, by the process that answered."
    )
    described: dict[str, Any] = {"description": text, "openapi_extra": {"security": [{}]}}
    described["responses"] = describe_refusals(400, 401, 403, 404, 409, 413)

    @router.post("/shown", summary="What was shown of an answer", status_code=204, **described)
    async def shown(request: Request, _: Annotated[ShownRequest, Body()]) -> Response:
        async with receive_body(request) as body:
            sent = parse_body(ShownRequest, body)
            hook.replace_answer(sent.request_id, sent.item_ids)
        return Response(status_code=204)
