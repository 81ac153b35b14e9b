"""The history for a tower that encodes it by causal self-attention (`core/models/sequence_encoder.py`)."""

from __future__ import annotations

from dssm_assets.core.models.poolings.attention import EventwisePooling


class SequencePooling(EventwisePooling):
    """Leaves the events apart and in order; the encoder also reads the time between them."""

    @property
    def needs_times(self) -> bool:
        """True: gaps in time are part of the encoder's input."""
        return True
