"""The section `serving.limits`: what one request may cost, and all requests together."""

from __future__ import annotations

from pydantic import Field

from dssm_assets.core.config.section import Section


class ServiceLimits(Section):
    """Limits of `dssm-assets serve`. Slow or silent clients and large headers are left to the proxy in front of it."""

    max_requests: int = Field(default=64, ge=1, le=100_000, description="Lists that wait or are made; others get status 503.")
    max_body_bytes: int = Field(default=1 << 20, ge=1024, le=1 << 26, description="Body of a request.")
    request_seconds: float = Field(default=10.0, gt=0, le=3600, description="Time of a body, and of its list; then status 503.")
    keep_alive_seconds: int = Field(default=5, ge=1, le=3600, description="Time that a connection stays open after an answer.")
    shutdown_seconds: int = Field(
        default=10,
        ge=1,
        le=3600,
        description="Time for running requests after SIGTERM or SIGINT, shorter than the grace period of what stops the service.",
    )
