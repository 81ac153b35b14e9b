"""Every built-in name has a loss, and the configuration accepts registered names alone."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.model import Loss, Model
from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.losses.registry import LOSSES


def test_every_built_in_name_has_a_loss() -> None:
    assert set(LOSSES) == set(Loss)
    assert [Model(loss=name).loss for name in LOSSES] == list(Loss)


def test_an_unknown_name_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"model": {"loss": "hinge"}})
    (fault,) = [fault for fault in caught.value.faults if fault.where == "configuration, key model.loss"]
    assert (fault.expected, fault.got) == ("a registered loss: softmax, sigmoid, l2", "'hinge'")
    assert "To fix: " in str(caught.value)
