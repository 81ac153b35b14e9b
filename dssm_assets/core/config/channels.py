"""The section `channels` of the configuration: where recalled items come from, and how the lists are merged."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from dssm_assets.core.config.section import Section, repeated_names


class ChannelName(StrEnum):
    """The channels: sources of recalled items."""

    VECTORS = "vectors"
    """The nearest items of the user's vector."""
    OWN_HISTORY = "own_history"
    """Items of the user's history, frequent and recent ones first."""
    ITEM_TO_ITEM = "item_to_item"
    """Items that co-occur with the user's items in other users' histories."""
    RECENT_POPULARITY = "recent_popularity"
    """The items with most interactions lately (`evaluation.recent`)."""


class MergeWeights(StrEnum):
    """How strongly each channel counts."""

    FITTED = "fitted"
    """As learned on days before the evaluation day: how often users interacted with what a channel proposed."""
    DEFAULT = "default"
    """The weights that fitting starts from, the same for all data."""


class Channel(Section):
    """A channel of the merged list."""

    name: ChannelName = Field(description="Where its items come from.")
    quota: int | None = Field(default=None, ge=1, le=20_000, description="Most items it proposes (default: `channels.depth`).")


class Channels(Section):
    """The channels of the merged list, which is evaluated and served next to the list of the vectors alone."""

    is_enabled: bool = Field(default=True, description="Whether lists are merged.")
    sources: list[Channel] = Field(
        default_factory=lambda: [Channel(name=name) for name in ChannelName], min_length=1, description="Among them `vectors`."
    )
    depth: int = Field(default=500, ge=10, le=10_000, description="Default quota of a channel; of `own_history` twice as many.")
    weights: MergeWeights = Field(default=MergeWeights.FITTED, description="How strongly each channel counts.")
    held_out_pairs: int = Field(
        default=2000,
        ge=1,
        le=100_000_000,
        description="Weights are fitted on the model's validation days. Where these have fewer pairs of user and item, the "
        "weights start from those of the latest days with as many, without vectors.",
    )
    held_out_days: int = Field(
        default=7, ge=1, le=60, description="Most such days without vectors; they lie in the window, not earlier than this."
    )

    @field_validator("sources")
    @classmethod
    def _named_once(cls, value: list[Channel]) -> list[Channel]:
        names = [channel.name for channel in value]
        if twice := repeated_names(names):
            raise ValueError(f"each channel may be named once, repeated: {twice}")
        if ChannelName.VECTORS not in names:
            raise ValueError("sources must contain vectors; to have no merged list, set is_enabled to false")
        return value

    @property
    def depths(self) -> dict[ChannelName, int]:
        """Returns how many items each channel proposes for a list, in the order of the channels."""
        twice = {ChannelName.OWN_HISTORY: 2 * self.depth}
        return {one.name: one.quota or twice.get(one.name, self.depth) for one in self.sources}
