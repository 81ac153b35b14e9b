"""The section `serving.limits` of the configuration: what one request, one client and all of them together may cost."""

from __future__ import annotations

from pydantic import Field

from dssm_assets.core.config.section import Section


class ServiceLimits(Section):
    """Limits of `dssm-assets serve`. A request beyond one is refused with the place, what was expected and what was found."""

    max_connections: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Open connections. One more closes the connection that has waited longest without a whole request; if there "
        "is none, it is refused with status 503.",
    )
    max_requests: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Lists that wait or are computed at once; more are refused with status 503. /health and /metrics do not count.",
    )
    retry_after_seconds: int = Field(default=1, ge=1, le=3600, description="Header Retry-After of status 503.")
    max_head_bytes: int = Field(
        default=65_536, ge=1024, le=1 << 20, description="Request line, with all query parameters, and headers."
    )
    max_body_bytes: int = Field(
        default=1 << 20, ge=1024, le=1 << 26, description="Body of a request, with or without Content-Length."
    )
    max_values: int = Field(
        default=50_000,
        ge=100,
        le=10_000_000,
        description="Values in a body, counted as its commas and opening brackets, those in texts too. Python reads 1,000 in up to "
        "half a millisecond and computes nothing else meanwhile.",
    )
    max_nesting: int = Field(default=16, ge=4, le=100, description="Lists and objects within one another, the body included.")
    max_text_length: int = Field(default=10_000, ge=1, le=10_000_000, description="Characters of one text in a body.")
    max_list_length: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Entries of a list or an object in a body, except the lists of the next two keys.",
    )
    max_history_length: int = Field(
        default=5000, ge=1, le=1_000_000, description="Entries of each list of `history` or `events`."
    )
    max_excluded: int = Field(default=10_000, ge=1, le=100_000, description="Ids of `exclude`.")
    max_faults: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="Faults that an answer tells; `faults_left_out` is the number of further ones that were found.",
    )
    keep_alive_seconds: int = Field(
        default=5, ge=1, le=3600, description="Time that an unused connection stays open between two requests."
    )
    transfer_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Time for a client to send the head of a request, again for its body, and again to read the answer.",
    )
    request_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Time from the whole request to its list; after that the answer is status 503.",
    )
    shutdown_seconds: int = Field(
        default=10,
        ge=1,
        le=3600,
        description="Time for running requests after SIGTERM or SIGINT; the rest is answered with status 503. Stay below the grace "
        "period of what stops the service.",
    )
