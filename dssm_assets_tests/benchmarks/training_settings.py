"""Settings of the comparison of training speed: data, towers and batches.

Belongs here: settings as values, and the products that one sample costs. It must not import our package or its libraries,
because peers read it in an interpreter of their own. Does not belong here: the data (`training_world.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Column:
    """One feature: its table's size and width, and whether a row holds up to three values."""

    name: str
    size: int
    dim: int
    is_multi: bool = False


@dataclass(frozen=True)
class Setting:
    """Data, towers and batches of one comparison.

    Attributes:
        samples, users, items: their numbers.
        user, context, item: features of each side; the first of items is the item itself.
        history: names of item features that are also pooled over the history.
        history_length: last items that are pooled.
        hidden, output_dim: layers of each tower.
        batch_size: rows of a batch, whose items are negatives of each other.
        num_sample: further negatives, shared by the batch.
        masks_user_positives: whether known items of a user are masked; only ours has such a mask.
    """

    name: str
    samples: int
    users: int
    items: int
    user: tuple[Column, ...]
    context: tuple[Column, ...]
    item: tuple[Column, ...]
    history: tuple[str, ...]
    history_length: int
    hidden: tuple[int, ...]
    output_dim: int
    batch_size: int
    num_sample: int
    masks_user_positives: bool = False

    def column(self, name: str) -> Column:
        """Returns the item feature of this name."""
        return next(column for column in self.item if column.name == name)

    @property
    def num_features(self) -> int:
        """Features of both towers, the pooled ones included."""
        return len(self.user) + len(self.context) + len(self.item) + len(self.history)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the products of one sample in one step: towers and logits, forward and both gradients."""
        pooled = sum(self.column(name).dim for name in self.history)
        user = _layers([sum(c.dim for c in self.user + self.context) + pooled, *self.hidden, self.output_dim])
        item = _layers([sum(c.dim for c in self.item), *self.hidden, self.output_dim])
        columns = self.batch_size + self.num_sample
        return 3 * (user + item * columns // self.batch_size + columns * self.output_dim)


def _layers(widths: list[int]) -> int:
    return sum(a * b for a, b in pairwise(widths))


def _columns(side: str, sizes: tuple[int, ...], dim: int) -> tuple[Column, ...]:
    return tuple(Column(f"{side}_{place}", size, dim) for place, size in enumerate(sizes))


def setting_of(changes: dict[str, Any]) -> Setting:
    """Returns a setting by its name with some sizes changed: {"name": "wide", "samples": 1000}."""
    sizes = {key: value for key, value in changes.items() if key != "name"}
    return {"wide": wide, "demo-like": demo_like}[changes["name"]](**sizes)


def wide(samples: int = 500_000, users: int = 50_000, items: int = 20_000, batch_size: int = 4096) -> Setting:
    """Returns 35 features of width 16: 20 of the user tower, 10 of the item tower, 5 of the history."""
    sizes = (2, 3, 5, 8, 10, 16, 24, 32, 50, 64, 100, 128, 200, 500, 1000, 2000)
    return Setting(
        name="wide",
        samples=samples,
        users=users,
        items=items,
        user=(*_columns("user", sizes, 16), Column("user_tags_0", 300, 16, True), Column("user_tags_1", 1000, 16, True)),
        context=_columns("context", (24, 7), 16),
        item=(
            Column("item", items + 1, 16),
            *_columns("item", (2, 5, 10, 20, 50, 100, 200, 1000), 16),
            Column("item_tags", 500, 16, True),
        ),
        history=("item", "item_4", "item_5", "item_6", "item_7"),
        history_length=50,
        hidden=(256, 128),
        output_dim=64,
        batch_size=batch_size,
        num_sample=batch_size // 2,
    )


def demo_like(samples: int = 120_000, users: int = 2_469, items: int = 92_000, batch_size: int = 1024) -> Setting:
    """Returns the shape of the demo: few users with long histories, no hidden layer, wide vectors."""
    return Setting(
        name="demo-like",
        samples=samples,
        users=users,
        items=items,
        user=_columns("user", (11,), 16),
        context=(),
        item=(
            Column("item", items + 1, 128),
            Column("item_type", 2400, 32),
            Column("item_category", 300, 32),
            *_columns("item", (6000, 30, 3, 4000), 16),
        ),
        history=("item", "item_type", "item_category"),
        history_length=100,
        hidden=(),
        output_dim=256,
        batch_size=batch_size,
        num_sample=1024,
        masks_user_positives=True,
    )
