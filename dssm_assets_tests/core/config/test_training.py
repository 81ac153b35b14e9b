"""The steps of a fit by hand, and a plan that is spread over fewer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.config.training import StepPlan, Training, planned_steps
from dssm_assets.core.training.optimisers import learning_rate_frac


def test_epochs_are_rounded_up_one_by_one() -> None:
    # 80 x .5 = 40 samples are 2 batches of 32, in 3 epochs 6 steps; a quarter of 6 is 1.5, rounded up 2 of warm-up.
    plan = planned_steps(80, Training(epochs=3, epoch_frac=0.5, batch_size=32, warmup_frac=0.25))
    assert plan == StepPlan(6, 4)
    assert plan.warmup_steps == 2


def test_a_shorter_fit_warms_up_for_the_same_share() -> None:
    assert StepPlan(18, 16).over(9) == StepPlan(9, 8)
    assert StepPlan(18, 18).over(9) == StepPlan(9, 9)
    assert StepPlan(18, 16).over(18) == StepPlan(18, 16)


@given(warmup=st.integers(0, 9), decay=st.integers(1, 30), steps=st.integers(2, 40))
def test_the_decay_ends_with_the_last_step(warmup: int, decay: int, steps: int) -> None:
    plan = StepPlan(warmup + decay, decay).over(steps)
    if plan.decay_steps > 1:
        assert learning_rate_frac(steps - 1, plan, 0.25) == pytest.approx(0.25)
    assert [learning_rate_frac(step, plan, 0.25) for step in range(plan.warmup_steps)] == pytest.approx(
        [(step + 1) / (plan.warmup_steps + 1) for step in range(plan.warmup_steps)]
    )
