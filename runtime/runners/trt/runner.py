"""Engines of a bundle on a GPU, by TensorRT or TensorRT for RTX. Written to the documented API, and not yet run on a GPU."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np

from runtime.bundle.engines import PORTABLE, EnginePrecision, EngineRecord
from runtime.bundle.schema import Bundle
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.traits import Traits
from runtime.runners.trt.cuda import Stream, compute_capability
from runtime.runners.trt.inspector import layer_report
from runtime.runners.trt.library import RTX, TENSORRT, Flavor, engine_flavor, error_log
from vitnla.common.errors import InputError, MissingDependencyError

_TRAITS = Traits(
    packages=("tensorrt",), extra="gpu", export_precisions=("fp32", "fp16", "int8", "fp8"), run_precisions=get_args(EnginePrecision),
    runs_engines=True,
)  # fmt: skip
"""An engine in bf16 is compiled from an fp32 bundle."""


class TrtRunner:
    """TensorRT where it is installed, else TensorRT for RTX."""

    name = "trt"
    traits = _TRAITS

    @property
    def flavor(self) -> Flavor:
        """Library that would be used."""
        return engine_flavor(self.name)

    def availability(self) -> Availability:
        """Return whether a library, a driver and a GPU are present; if not, with TensorRT's own requirements."""
        found = self.flavor.can_run()
        return found if found.ok else TENSORRT.can_run()

    def engine_precisions(self, bundle: Bundle) -> tuple[EnginePrecision, ...]:
        """See `EngineRunner`."""
        held = {record.precision for record in bundle.engine_records() if record.runtime == self.flavor.name}
        return tuple(precision for precision in self.traits.run_precisions if precision in held)

    def imports(self) -> None:
        """Import the library."""
        self.flavor.library()

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Load the engine that fits the GPU and the batch.

        Raises:
            MissingDependencyError: the library or a GPU is absent, or the bundle holds no fitting engine.
            InputError: the engine cannot be read by this version of the library.
        """
        self.availability().require(self.name)
        return TrtSession(
            self.name,
            bundle,
            self.flavor,
            find_engine(bundle, self.flavor, compute_capability(), options.batch, options.precision),
        )


class TrtRtxRunner(TrtRunner):
    """TensorRT for RTX, also where TensorRT is installed."""

    name = "trt-rtx"
    traits = replace(_TRAITS, packages=("tensorrt-rtx-cu13",), extra="rtx")

    def availability(self) -> Availability:
        """Return whether TensorRT for RTX, a driver and a GPU are present."""
        return RTX.can_run()


def find_engine(
    bundle: Bundle, flavor: Flavor, capability: tuple[int, int], batch: int, precision: EnginePrecision | None = None
) -> EngineRecord:
    """Return the engine for a library, a GPU, a batch size and, optionally, a precision.

    Without a precision, the bundle's own is preferred, and an engine for this exact GPU is preferred to a portable one.

    Raises:
        MissingDependencyError: there is none; names the existing ones and how to make one.
    """
    records = bundle.engine_records()
    fitting = [
        record
        for record in records
        if record.runtime == flavor.name
        and record.runs_on(capability)
        and record.profile.min <= batch <= record.profile.max
        and record.precision == (precision or record.precision)
    ]
    if not fitting:
        wanted = f"SM{capability[0]}{capability[1]}"
        of, option = (f" of {precision}", f" --engine-precision {precision}") if precision else ("", "")
        present = (
            ", ".join(f"{record.runtime} {record.capability} {record.precision} batch {record.profile}" for record in records)
            or "no engine"
        )
        raise MissingDependencyError(
            f"{bundle.folder} has no {flavor.title} engine{of} for {wanted} and batch {batch}; it holds {present}",
            f"export it again with: vitdeploy export --engine {flavor.name}{option} --batch MIN:OPT:MAX",
        )
    own = bundle.manifest.precision
    return min(fitting, key=lambda record: (record.precision != own, record.capability == PORTABLE))


def why_not(library: Any, flavor: Flavor, record: EngineRecord, capability: tuple[int, int], errors: list[str]) -> str:
    """Return the likeliest reason why an engine was refused: its version, its GPU, or the library's own message."""
    here = f"SM{capability[0]}{capability[1]}"
    if record.library_version != library.__version__ and not record.version_compatible:
        return f"it was built by {flavor.title} {record.library_version}, and here is {library.__version__}"
    if not record.runs_on(capability):
        return f"it was built for {record.capability}, and the GPU here is {here}"
    return " ".join((errors or ["no reason given"])[0].split())


class TrtSession(Session):
    """A deserialised engine, its execution context, and device buffers for the profile's largest batch."""

    def __init__(self, runner: str, bundle: Bundle, flavor: Flavor, record: EngineRecord) -> None:
        super().__init__(runner, bundle)
        self._record = record
        self._library = flavor.library()
        self._log, errors = error_log(self._library)
        self._runtime = self._library.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine((bundle.folder / record.file).read_bytes())
        if self._engine is None:
            raise InputError(
                f"{record.file} cannot be loaded: {why_not(self._library, flavor, record, compute_capability(), errors)}",
                f"export it again here with: vitdeploy export --engine {flavor.name}",
            )
        self._context = self._engine.create_execution_context()
        self.stream = Stream()
        manifest = bundle.manifest
        self._input, self._classes = manifest.input.name, len(manifest.labels)
        self._images = self.stream.allocate(record.profile.max * math.prod(map(int, self._shape)) * self._dtype.itemsize)
        self._logits = self.stream.allocate(record.profile.max * self._classes * np.dtype(np.float32).itemsize)
        self._context.set_tensor_address(self._input, self._images)
        self._context.set_tensor_address(manifest.output.name, self._logits)

    def _infer(self, images: Images) -> Logits:
        self.place(images)
        self.enqueue()
        return self.stream.download(self._logits, (len(images), self._classes))

    def place(self, images: Images) -> None:
        """Enqueue the copy of a batch to the device, where it stays.

        Raises:
            InputError: the batch is outside the engine's profile.
        """
        profile = self._record.profile
        if not profile.min <= len(images) <= profile.max:
            hint = "export it again with a wider --batch MIN:OPT:MAX"
            raise InputError(
                f"{self.runner}: the engine takes batches of {profile.min} to {profile.max}, got {len(images)}", hint
            )
        self._context.set_input_shape(self._input, images.shape)
        self.stream.upload(np.ascontiguousarray(images), self._images)

    def enqueue(self) -> None:
        """Enqueue one inference on the batch that `place` copied to the device.

        Raises:
            MissingDependencyError: the library refused it.
        """
        if not self._context.execute_async_v3(self.stream.handle):
            hint = "see nvidia-smi for the GPU's state and free memory"
            raise MissingDependencyError(f"{self.runner}: the engine could not be enqueued", hint)

    def facts(self) -> dict[str, Any]:
        """Return facts on the library, the engine, its layers and its memory."""
        fusion = layer_report(self._library, self._engine)
        return {
            "version": self._library.__version__,
            "device": "cuda:0",
            "precision": self._record.precision,
            "threads": 1,
            "library": self._record.runtime,
            "engine": self._record.file,
            "engine_layers": self._engine.num_layers,
            "fused_attention": fusion and fusion.fused_attentions,
            "layer_formats": fusion and fusion.formats,
            "activation_memory_mb": self._engine.device_memory_size_v2 / 2**20,
            "io": "pageable host arrays, copies inside run()",
        }

    def close(self) -> None:
        """Free the context, the engine and the device memory."""
        del self._context, self._engine
        self.stream.close()
