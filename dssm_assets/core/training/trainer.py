"""One step of learning: the towers, their optimisers and all that the next step depends on.

Belongs here: `Trainer`. Does not belong here: which batches come (`batches`), how many (`loop`), how weights move
(`optimisers`).

Letters: B rows, N sampled negatives, H hard negatives, Q queued items, D vector width.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Device, Precision, StepPlan, Training
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.embedding import Lookup
from dssm_assets.core.models.interests import chosen_interests
from dssm_assets.core.models.losses.registry import LOSSES
from dssm_assets.core.models.tower import BatchNorm
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import Batch, ItemSide, Share
from dssm_assets.core.training.distinct_items import item_side
from dssm_assets.core.training.distributed.ranks import Ranks
from dssm_assets.core.training.distributed.sharded_tables import ShardedTables
from dssm_assets.core.training.optimisers import dense_optimiser, gradients_of, learning_rate_frac, row_optimiser
from dssm_assets.core.training.weight_average import WeightAverage


def device_of(choice: Device) -> torch.device:
    """Returns the device that is meant.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if choice is Device.CUDA and not has_cuda:
        got = "a machine without a CUDA device"
        raise ConfigError(Fault("training.device", "a CUDA device", got, "choose auto or cpu"))
    return torch.device("cuda" if has_cuda and choice is not Device.CPU else "cpu")


def is_bfloat16(choice: Precision, device: torch.device) -> bool:
    """Tells whether products are to be of bfloat16 factors."""
    if choice is Precision.AUTO:
        return multiplies_bfloat16(device)
    return choice is Precision.BFLOAT16


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tells whether the processor has instructions for products of bfloat16 numbers."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not public in every release of torch; a release without them is taken for a processor without the instructions.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(bool(ask()) for ask in asked if ask is not None)


def products(bfloat16: bool, device: torch.device) -> AbstractContextManager[object]:
    """Returns the block in which dense layers multiply in the format."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


@dataclass(frozen=True)
class Place:
    """Where and by whom products are made: a device, their number format, the processes."""

    device: torch.device
    bfloat16: bool
    ranks: Ranks


class Trainer:
    """Towers that learn from one batch after the other."""

    def __init__(
        self, two_tower: TwoTower, model: Model, training: Training, *, seed: int, plan: StepPlan, place: Place
    ) -> None:
        """Takes the towers, moved to their place, as they are to begin with.

        Args:
            two_tower: changed by every step.
            model: the loss and the queue.
            training: learning rates, the average.
            seed: of dropout.
            plan: over which steps the learning rates rise and fall.
            place: device, format, processes.
        """
        self.two_tower = two_tower
        self.plan, self.done = plan, 0
        self._model, self._training, self._place, self._seed = model, training, place, seed
        self._dropout = torch.Generator(place.device).manual_seed(seed)
        self._sparse = row_optimiser(two_tower.tables, training.embedding_optimiser)
        self._dense = dense_optimiser(two_tower, training.learning_rate, training.weight_decay)
        self.average = WeightAverage(two_tower, training.weight_average) if training.weight_average else None
        self._queue: deque[Tensor] = deque(maxlen=model.queue_batches)
        if place.ranks.count > 1:
            for norm in (module for module in two_tower.modules() if isinstance(module, BatchNorm)):
                norm.add_up = place.ranks.summed

    def averaged(self) -> AbstractContextManager[None]:
        """Returns the block in which the towers hold the averaged weights, if an average is kept."""
        return nullcontext() if self.average is None else self.average.in_place()

    def begin_epoch(self) -> None:
        """Forgets the queued items: an epoch's batches are numbered from its own first."""
        self._queue.clear()

    def take(self, batch: Batch) -> float:
        """Learns from one batch and returns its loss, as it was before the step."""
        ranks = self._place.ranks
        if ranks.count > 1:
            # Of the step alone, so that what is stored need not hold one state per process.
            words = np.random.SeedSequence([self._seed, ranks.rank, self.done]).generate_state(1)
            self._dropout.manual_seed(int(words[0]))
        tape: list[Lookup] = []
        loss, own = self._loss(batch, tape)
        self._dense.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._move(tape)
        if self._model.queue_batches:
            self._queue.append(own.detach())
        return self._told(loss)

    def _loss(self, batch: Batch, tape: list[Lookup]) -> tuple[Tensor, Tensor]:
        """Returns this process's part of the loss, which add up to the batch's, and the vectors of all own items [B, D]."""
        place, share = self._place, batch.share
        side = item_side(batch, self._model)
        with products(place.bfloat16, place.device):
            items = self._item_vectors(side, share, tape)
            own = items.index_select(0, torch.from_numpy(side.own).to(items.device))
            positive = own if share is None else own[torch.from_numpy(share.rows).to(own.device)]
            user = self._user_vectors(batch, positive, tape)
        if share is not None and not len(share.rows):
            # Fewer samples than processes: the others' need this one's item vectors, and its part in every exchange.
            return (items.sum() + user.sum()) * 0.0, own
        end = len(items) - batch.num_hard
        columns = items[side.columns]
        if self._queue:
            columns = torch.cat([columns, *self._queue])
        terms = replace(side.terms.to(place.device), bfloat16=place.bfloat16)
        scale, affine = self.two_tower.similarity_scale(), self.two_tower.affine()
        loss = LOSSES[self._model.loss](user, positive, columns, items[end:], terms, scale, affine)
        return loss if share is None else loss * (terms.weight.sum() / share.weight), own

    def _item_vectors(self, side: ItemSide, share: Share | None, tape: list[Lookup]) -> Tensor:
        """Returns the vectors of the items that all processes share, then of this process's hard negatives."""
        items = self.two_tower.item_vectors(side.items, tape, self._dropout, with_frozen=self._model.frozen_in_loss).float()
        if share is None:
            return items
        dealt = len(self._place.ranks.rows(share.num_items))
        return torch.cat([self._place.ranks.gathered(items[:dealt], share.num_items), items[dealt:]])

    def _user_vectors(self, batch: Batch, positive: Tensor, tape: list[Lookup]) -> Tensor:
        """Returns the vector with which each sample meets its item; a visit's is computed once."""
        towers, with_frozen = self.two_tower, self._model.frozen_in_loss
        if batch.user_of is None:
            return towers.user_vectors_for(batch.user, positive, tape, self._dropout, with_frozen=with_frozen).float()
        vectors = towers.user_vectors(batch.user, tape, self._dropout, with_frozen=with_frozen).float()
        each = vectors.index_select(0, torch.from_numpy(batch.user_of).to(vectors.device))
        return chosen_interests(each, positive) if towers.spec.num_interests > 1 else each

    def _move(self, tape: list[Lookup]) -> None:
        """Moves all weights by the gradients of all processes."""
        towers, training, ranks = self.two_tower, self._training, self._place.ranks
        if ranks.count > 1:
            for parameter in towers.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            ranks.add_up([p.grad for p in towers.parameters() if p.grad is not None])
        if training.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(towers.parameters(), training.gradient_clip)
        found = gradients_of(towers.tables, tape)
        if isinstance(towers.tables, ShardedTables):
            rows = towers.tables.moved_here(found)
        else:
            rows = ranks.summed_rows(found, {dim: towers.tables.table(dim) for dim in towers.tables.dims})
        frac = learning_rate_frac(self.done, self.plan, training.final_learning_rate_frac)
        for group in self._dense.param_groups:
            group["lr"] = training.learning_rate * frac
        if self.average is not None:
            self.average.before(rows)
        self._dense.step()
        self._sparse.move(rows, training.embedding_learning_rate * frac)
        if self.average is not None:
            self.average.after(rows)
        self.done += 1

    def _told(self, loss: Tensor) -> float:
        if self._place.ranks.count > 1:
            loss = loss.detach().clone().reshape(1)
            self._place.ranks.add_up([loss])
        return float(loss.item())

    def state(self) -> dict[str, Tensor]:
        """Returns all that the next step depends on, by name; not copies."""
        state = {f"towers.{name}": tensor for name, tensor in self.two_tower.state_dict().items()}
        state |= {f"rows.{name}": tensor for name, tensor in self._sparse.state().items()}
        for index, parameter in enumerate(self.two_tower.parameters()):
            moments = self._dense.state.get(parameter, {})
            state |= {f"dense.{index}.{name}": tensor for name, tensor in moments.items()}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state().items()}
        state |= {f"queue.{place}": vectors for place, vectors in enumerate(self._queue)}
        return state | {"dropout": self._dropout.get_state(), "done": torch.tensor(self.done)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Goes on from what `state` returned."""
        part = {name: _part(state, f"{name}.") for name in ("towers", "rows", "dense", "average", "queue")}
        self.two_tower.load_state_dict(part["towers"])
        self._sparse.load(part["rows"])
        for index, parameter in enumerate(self.two_tower.parameters()):
            moments = _part(part["dense"], f"{index}.")
            if moments:
                # The count of steps stays where AdamW keeps it, on the processor; moments lie beside their weights.
                placed = {name: tensor if name == "step" else tensor.to(parameter.device) for name, tensor in moments.items()}
                self._dense.state[parameter] = placed
        if self.average is not None:
            self.average.load(part["average"])
        self._queue.clear()
        self._queue.extend(part["queue"][str(place)].to(self._place.device) for place in range(len(part["queue"])))
        self._dropout.set_state(state["dropout"].cpu())
        self.done = int(state["done"])


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
