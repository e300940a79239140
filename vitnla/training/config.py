"""The settings of a training run, and the named presets."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidationError

from vitnla.common.errors import InputError
from vitnla.common.registry import Registry
from vitnla.common.schema import Record, first_complaint
from vitnla.model.config import ViTConfig


class TrainConfig(Record):
    """Everything that decides a run, so that the same value on the same data gives the same schedule.

    Learning rates follow a cosine after a linear warm-up. Hidden matrices are trained by Muon (Jordan et al. 2024), the rest by AdamW.
    """

    epochs: Annotated[int, Field(ge=1)] = 21
    batch_size: Annotated[int, Field(ge=2)] = 192
    lr: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shift: Annotated[int, Field(ge=0)] = 2
    """Largest random translation, in pixels, along each axis."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of blanking a random rectangle."""
    flip: bool = True
    token_keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of patch tokens that training keeps (PatchDropout, Liu et al. 2023) before the final epochs."""
    full_token_epochs: Annotated[float, Field(ge=0)] = 5
    """The last epochs, in which every token is seen, as at inference."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    seed: int = 0


class Preset(Record):
    """A model shape (its image size, channels and classes come from the data) and how to train it."""

    patch_size: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    train: TrainConfig = TrainConfig()

    def model(self, image_size: int, channels: int, classes: int) -> ViTConfig:
        """The dense ViT of this preset for images of the given shape."""
        return ViTConfig.uniform(
            image_size=image_size, patch_size=self.patch_size, channels=channels, classes=classes, dim=self.dim,
            depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio, pooling="cls+mean",
        )  # fmt: skip

    def with_training(self, **changes: float) -> Preset:
        """The same preset with some training settings replaced.

        Raises:
            InputError: a value is out of its range.
        """
        try:
            train = TrainConfig.model_validate(self.train.model_dump() | changes)
        except ValidationError as error:
            raise InputError(f"training settings: {first_complaint(error)}", "see vitdeploy train --help") from error
        return self.model_copy(update={"train": train})


PRESETS: Registry[Preset] = Registry("preset")
PRESETS.add("demo", Preset(patch_size=4, dim=192, depth=6, heads=3))
PRESETS.add(
    "tiny", Preset(patch_size=7, dim=64, depth=2, heads=2, mlp_ratio=2.0, train=TrainConfig(epochs=3, full_token_epochs=1))
)
