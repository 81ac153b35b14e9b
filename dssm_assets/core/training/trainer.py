"""One step of training: forward, backward, and the update of all weights.

Letters: B samples of a batch, b samples of this process, M items shared by all processes, H hard negatives, D vector width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.models.embedding import Lookup
from dssm_assets.core.models.losses import LOSSES, LossTerms
from dssm_assets.core.models.two_tower import TwoTower, nearest_interests
from dssm_assets.core.training.batches import Batch
from dssm_assets.core.training.compute import ComputeContext
from dssm_assets.core.training.optimisers import DenseOptimiser, gradients_of, learning_rate_frac, row_optimiser
from dssm_assets.core.training.weight_average import WeightAverage


class Trainer:
    def __init__(
        self,
        two_tower: TwoTower,
        model: Model,
        training: Training,
        *,
        seed: int,
        plan: StepPlan,
        compute: ComputeContext,
    ) -> None:
        """Starts from the towers' current weights. Every step changes them, on the device of `compute`."""
        self.two_tower, self.plan, self.steps_done = two_tower, plan, 0
        self._model, self._training, self._compute, self._seed = model, training, compute, seed
        self._dropout = torch.Generator(compute.device).manual_seed(seed)
        self._row_optimiser = row_optimiser(two_tower.tables, training.embedding_optimiser)
        self._dense_optimiser = DenseOptimiser(two_tower, training.weight_decay)
        self._average = WeightAverage(two_tower, training.weight_average) if training.weight_average else None

    def train_step(self, batch: Batch) -> float:
        """Learns from one batch. Returns the loss before the update."""
        ranks, tape = self._compute.ranks, list[Lookup]()
        ranks.seed_dropout(self._dropout, self._seed, self.steps_done)
        loss = self._forward(batch, tape)
        self.two_tower.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply_gradients(tape)
        return ranks.sum_loss(loss)

    def _forward(self, batch: Batch, tape: list[Lookup]) -> Tensor:
        """Returns this process's part of the batch's loss."""
        with self._compute.products():
            items = self.two_tower.item_vectors(batch.items, tape, self._dropout, with_frozen=self._model.frozen_in_loss)
            items = self._compute.ranks.gather_items(items.float(), batch.num_shared)
            shared, hard = items[: batch.num_shared], items[batch.num_shared :]  # [M, D] shared, [H, D] of this process
            own = torch.from_numpy(batch.own[batch.rows]).to(items.device)
            positives = shared.index_select(0, own)  # [b, D]: the items of this process's samples
            users = self._user_vectors(batch, positives, tape)
        loss = self._loss_of(users, positives, shared[batch.columns], hard, batch.terms.to(self._compute.device))
        return loss * batch.weight_frac

    def _user_vectors(self, batch: Batch, positives: Tensor, tape: list[Lookup]) -> Tensor:
        """Returns the user vector of each sample. With several interests, this is the interest nearest to the sample's item."""
        towers, with_frozen = self.two_tower, self._model.frozen_in_loss
        vectors = towers.user_vectors(batch.user, tape, self._dropout, with_frozen=with_frozen).float()
        if batch.user_of is not None:
            vectors = vectors.index_select(0, torch.from_numpy(batch.user_of).to(vectors.device))
        return nearest_interests(vectors, positives) if towers.spec.num_interests > 1 else vectors

    def _loss_of(self, users: Tensor, positives: Tensor, columns: Tensor, hard: Tensor, terms: LossTerms) -> Tensor:
        if not len(users):
            # In a small last batch a process may have no samples. The others still need its items and its part in every exchange.
            return (users.sum() + positives.sum() + columns.sum() + hard.sum()) * 0.0
        scale, affine = self.two_tower.similarity.scale(), self.two_tower.similarity.affine()
        return LOSSES[self._model.loss](users, positives, columns, hard, terms, scale, affine)

    def _apply_gradients(self, tape: list[Lookup]) -> None:
        towers, training, ranks = self.two_tower, self._training, self._compute.ranks
        ranks.sum_gradients(towers)
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(towers.parameters(), training.gradient_clip)
        rows = ranks.sum_row_gradients(gradients_of(towers.tables, tape), towers.tables)
        frac = learning_rate_frac(self.steps_done, self.plan, training.final_learning_rate_frac)
        if self._average is not None:
            self._average.before_update(rows)
        self._dense_optimiser.update(training.learning_rate * frac)
        self._row_optimiser.update_rows(rows, training.embedding_learning_rate * frac)
        if self._average is not None:
            self._average.after_update(rows)
        self.steps_done += 1

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside the block, the towers have the weights for scoring."""
        return nullcontext() if self._average is None else self._average.evaluation_weights()

    def finish(self) -> None:
        """Leaves the final weights in the towers; must be called after the last step."""
        if self._average is not None:
            self._average.finish()

    def state(self) -> dict[str, Tensor]:
        """Returns name -> tensor for everything that the next step needs. The tensors are not copied."""
        state = {f"towers.{name}": tensor for name, tensor in self.two_tower.state_dict().items()}
        state |= {f"rows.{name}": tensor for name, tensor in self._row_optimiser.state().items()}
        state |= {f"dense.{name}": tensor for name, tensor in self._dense_optimiser.state().items()}
        if self._average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self._average.state().items()}
        return state | {"dropout": self._dropout.get_state(), "done": torch.tensor(self.steps_done)}

    def load(self, state: dict[str, Tensor]) -> None:
        self._dropout.set_state(state["dropout"].cpu())
        self.steps_done = int(state["done"])
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
