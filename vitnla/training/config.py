"""Settings of a training or distillation run, and the named presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from vitnla.common.errors import InputError
from vitnla.common.registry import Registry
from vitnla.common.schema import Record, first_complaint
from vitnla.model.config import Activation, Pooling, ViTConfig


class Schedule(Record):
    """Settings of every run, beside its loss: equal settings on the same data give the same run.

    Learning rates follow a cosine to one hundredth of `lr`, after a linear warm-up.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=2)]
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    shift: Annotated[int, Field(ge=0)] = 0
    """Largest random translation, in pixels, along each axis."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of blanking a random rectangle."""
    flip: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.998
    seed: int = 0

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return the settings with some replaced.

        Raises:
            InputError: there is no such setting, or its value is out of range.
        """
        try:
            return self.model_validate(self.model_dump() | dict(values))
        except ValidationError as error:
            hint = f"the settings are {', '.join(type(self).model_fields)}"
            raise InputError(f"training settings: {first_complaint(error)}", hint) from error


class TrainConfig(Schedule):
    """Training from scratch: hidden matrices by Muon (Jordan et al. 2024), the rest by AdamW."""

    epochs: Annotated[int, Field(ge=1)] = 21
    batch_size: Annotated[int, Field(ge=2)] = 192
    lr: Annotated[float, Field(gt=0)] = 3e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    shift: Annotated[int, Field(ge=0)] = 2
    flip: bool = True
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    token_keep: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of patch tokens that training keeps (PatchDropout, Liu et al. 2023) before the final epochs."""
    full_token_epochs: Annotated[float, Field(ge=0)] = 5
    """Number of final epochs that use every token, as at inference."""

    def share(self, epoch: int) -> float:
        """Return the share of the patch tokens that an epoch, counted from 0, keeps."""
        return self.token_keep if epoch < self.epochs - self.full_token_epochs else 1.0


class DistillConfig(Schedule):
    """Distillation by AdamW: duration, learning rate, and the terms of the loss."""

    epochs: Annotated[int, Field(ge=1)] = 3
    batch_size: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 2.0
    block_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the block outputs' error beside that of the logits, which has weight 1; 0 leaves it out."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of matrix products; fp32 may be faster on a CPU without bf16 instructions."""


class Preset(Record):
    """A model shape (image size, channels and classes come from the data) and its training settings."""

    patch_size: int
    dim: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    pooling: Pooling = "cls+mean"
    train: TrainConfig = TrainConfig()

    def model(self, image_size: int, channels: int, classes: int) -> ViTConfig:
        """Return the dense ViT of this preset for images of the given shape."""
        return ViTConfig.uniform(
            image_size=image_size, patch_size=self.patch_size, channels=channels, classes=classes, dim=self.dim,
            depth=self.depth, heads=self.heads, mlp_ratio=self.mlp_ratio, activation=self.activation, pooling=self.pooling,
        )  # fmt: skip

    def with_training(self, **changes: float) -> Preset:
        """Return the preset with some training settings replaced; see `Schedule.changed`."""
        return self.model_copy(update={"train": self.train.changed(changes)})


PRESETS: Registry[Preset] = Registry("preset")
PRESETS.add("demo", Preset(patch_size=4, dim=192, depth=6, heads=3))
# The control of every speed claim on the demo: a dense ViT about as fast as the demo decomposed to half its MACs, trained the same way.
PRESETS.add("demo-small", Preset(patch_size=4, dim=128, depth=6, heads=2))
PRESETS.add(
    "tiny", Preset(patch_size=7, dim=64, depth=2, heads=2, mlp_ratio=2.0, train=TrainConfig(epochs=3, full_token_epochs=1))
)
# The slide deck's kind of ViT, for its tables: small, ReLU, every token seen at every step, plain images.
PRESETS.add(
    "deck",
    Preset(
        patch_size=7, dim=64, depth=4, heads=4, mlp_ratio=2.0, activation="relu", pooling="cls",
        train=TrainConfig(epochs=5, batch_size=128, token_keep=1.0, shift=0, flip=False, label_smoothing=0.0),
    ),
)  # fmt: skip
