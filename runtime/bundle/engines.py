"""Records of the TensorRT engines in a bundle: their targets, and the GPUs that they run on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record

Library = Literal["trt", "trt-rtx"]
EnginePrecision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
ENGINES, PORTABLE = "engines", "portable"
_PORTABLE_FROM, NOT_RTX = 80, frozenset({90, 100, 103})
"""A portable engine of TensorRT for RTX runs on capability 8.0 and later; data-centre Hopper and Blackwell are not supported."""
_AMPERE = 80
"""A hardware-compatible engine of TensorRT runs on Ampere and later."""
FIRST_GPU: dict[EnginePrecision, int] = {"fp32": 75, "fp16": 75, "bf16": 80, "int8": 75, "fp8": 89}
"""The first compute capability that has a precision."""


class BatchProfile(Record):
    """Smallest, optimal and largest batch size of an engine."""

    min: Annotated[int, Field(ge=1)]
    opt: int
    max: int

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"expected MIN <= OPT <= MAX, but got {self.min}:{self.opt}:{self.max}")
        return self

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read MIN:OPT:MAX.

        Raises:
            InputError: the text is not three numbers in ascending order, from 1.
        """
        try:
            smallest, tuned, largest = map(int, text.split(":"))
            return cls(min=smallest, opt=tuned, max=largest)
        except ValueError as error:  # pydantic's ValidationError is one too
            expected = "batch sizes MIN:OPT:MAX with 1 <= MIN <= OPT <= MAX"
            raise InputError(f"expected {expected}, got '{text}'", "for example --batch 1:16:64") from error

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"


class LayerReport(Record):
    """Layers of an engine, as TensorRT's engine inspector reports them."""

    layers: int
    """After fusion."""
    fused_attentions: int
    formats: dict[str, int]
    """Number of layers that write each format, such as `Half`."""


class EngineRecord(Record):
    """The sidecar of an engine file. A sidecar, since metadata inside the file would stop other programs from reading it."""

    schema_version: Literal[1] = 1
    file: str
    """The engine, by its path inside the bundle."""
    runtime: Library
    library_version: str
    capability: str
    """`SM89` and the like, or `portable`."""
    precision: EnginePrecision
    profile: BatchProfile
    layers: int
    """Layers of the network that was compiled, before the compiler fused any."""
    build_seconds: float
    graph_sha256: str
    """SHA-256 of the bundle's `model.onnx`."""
    graph_max_rel: float
    """Error of the graph at this precision, in ONNX Runtime on the CPU: max |difference| from the fp32 torch logits / max |logit|."""
    engine_sha256: str
    engine_bytes: int
    builder_optimization_level: int | None = None
    """None is the library's default."""
    version_compatible: bool = False
    hardware_compatible: bool = False
    reused: bool = False
    """True if it was taken from the cache of engines compiled from the same graph for the same target; `build_seconds` is of that build."""
    fusion: LayerReport | None = None
    """None where there was no GPU to load the engine; elsewhere the runner's facts have it."""

    def runs_on(self, compute_capability: tuple[int, int]) -> bool:
        """Return True if a GPU of this compute capability (major, minor) can load the engine."""
        number = 10 * compute_capability[0] + compute_capability[1]
        if self.capability == PORTABLE:
            return number >= max(_PORTABLE_FROM, FIRST_GPU[self.precision]) and number not in NOT_RTX
        if self.hardware_compatible:
            return number >= _AMPERE
        return self.capability == f"SM{number}"


def engine_path(library: Library, capability: str, precision: EnginePrecision) -> str:
    """Return the path of an engine inside its bundle; its sidecar has the suffix `.json` instead."""
    return f"{ENGINES}/{library}-{capability}-{precision}.engine"


def read_records(bundle: Path) -> tuple[EngineRecord, ...]:
    """Return the sidecars of a bundle folder, by name.

    Raises:
        InputError: a sidecar is damaged.
    """
    return tuple(EngineRecord.read(path) for path in sorted((bundle / ENGINES).glob("*.json")))
