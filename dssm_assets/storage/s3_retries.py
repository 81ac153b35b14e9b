"""The S3 filesystem of s3fs, which also waits for an object store that restarts.

botocore repeats a failing request a few times, for about eight seconds, which is right for a host that does not exist. A store that
restarts is away for longer (SeaweedFS 35 s): first it answers 500, then it takes no connections.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.exceptions import HTTPClientError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem

RESTART_SECONDS: Final = 120.0
"""How long the same request is repeated."""
WAIT_SECONDS: Final = 1.0
"""Before it is repeated; botocore's own tries, with waits of their own, come on top of it."""
_SERVER_FAULTS: Final = frozenset({500, 502, 503, 504})


class RetryingS3FileSystem(S3FileSystem):  # type: ignore[misc]
    """Repeats requests for two minutes while the store answers with a server fault or, if it has answered before, not at all."""

    _has_answered = False

    async def _call_s3(self, method: str, *args: Any, **kwargs: Any) -> Any:
        end = None
        while True:
            try:
                answer = await super()._call_s3(method, *args, **kwargs)
            except Exception as error:
                response = getattr(error.__cause__, "response", None) or {}  # s3fs raises errors of its own from botocore's
                status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                self._has_answered |= status is not None
                is_away = self._has_answered and isinstance(error, NoConnectionError | HTTPClientError)
                end = end or time.monotonic() + RESTART_SECONDS
                if not (status in _SERVER_FAULTS or is_away) or time.monotonic() >= end:
                    raise
                await asyncio.sleep(WAIT_SECONDS)
            else:
                self._has_answered = True
                return answer

    call_s3 = sync_wrapper(_call_s3)
