"""Runners on torch. They read the bundle's checkpoint, so they are part of `export` and not of `runtime`.

Torch is imported by `imports` and `load`, not with the module, so that listing the runtimes does not wait for it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.bundle.schema import CHECKPOINT, Bundle
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor, nn

_TRAITS = Traits(packages=("torch",))


def reference_model(bundle: Bundle) -> nn.Module:
    """Return the model of the bundle's checkpoint, with the input and output of the bundle's graph."""
    from export.graph.preprocessing import Embedding
    from export.graph.preprocessing_twin import EmbeddedViT
    from vitnla.data.preprocessing import Preprocessing
    from vitnla.model import load_checkpoint

    model, manifest = load_checkpoint(bundle.folder / CHECKPOINT), bundle.manifest
    if manifest.embedded is None:
        return model
    height, width = map(int, manifest.input.shape[1:3])
    embedding = Embedding((height, width), manifest.embedded.output)
    return EmbeddedViT(model, embedding.pixel_map(Preprocessing.model_validate(manifest.preprocessing)), embedding.output)


class TorchRunner:
    """Runner of eager PyTorch in float32, on CUDA if there is a GPU."""

    name = "torch"
    traits = _TRAITS

    def availability(self) -> Availability:
        """Return whether torch is installed."""
        if importlib.util.find_spec("torch") is None:
            return Availability(False, "the package torch is not installed", "pip install vitdeploy, which brings it")
        return Availability(True)

    def imports(self) -> None:
        """Import torch, and the model's layers."""
        import vitnla.model  # noqa: F401

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Load the bundle's checkpoint.

        Raises:
            InputError: the checkpoint is missing or damaged, or the bundle was made without one.
        """
        return TorchSession(self.name, bundle, options)


class TorchCompileRunner(TorchRunner):
    """Runner of `torch.compile` in float32; compilation is part of loading."""

    name = "torch-compile"

    def availability(self) -> Availability:
        """Return whether torch's code generator can run: with a C++ compiler and Python's headers, or Triton on a GPU."""
        if not (found := super().availability()).ok:
            return found
        import torch

        if torch.cuda.is_available():
            return Availability(True)
        compilers = (os.environ.get("CXX", "g++"), "g++", "clang++")
        if not any(shutil.which(compiler) for compiler in compilers):
            return Availability(False, "no C++ compiler was found", "install one (Debian: apt install g++), or set CXX")
        if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
            return Availability(False, "Python's header files were not found", "install them (Debian: apt install python3-dev)")
        return Availability(True)

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Load the bundle's checkpoint and compile it for the batch size.

        Raises:
            InputError: the checkpoint is missing or damaged.
            MissingDependencyError: there is no compiler, or it failed.
        """
        import torch

        self.availability().require(self.name)
        return TorchSession(self.name, bundle, options, torch.compile)


class TorchSession(Session):
    """A model on the best device, float32. On a GPU, `run` includes the copies to the device and back."""

    def __init__(self, runner: str, bundle: Bundle, options: RunOptions, compile_model: Callable[..., Any] | None = None) -> None:
        super().__init__(runner, bundle)
        import torch

        if bundle.manifest.model is None:
            found = f"{runner}: bundle '{bundle.name}' was made from an ONNX file, so there is no torch model to run"
            raise InputError(found, "use --runtime ort or openvino")
        torch.set_num_threads(options.threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._compiled = compile_model is not None
        self._model: Callable[[Tensor], Tensor] = reference_model(bundle).to(self._device).eval()
        if compile_model is not None:
            self._model = compile_model(self._model)
            self._compile(options.batch)

    def _compile(self, batch: int) -> None:
        """Run once, since `torch.compile` compiles on first use, so that no measurement includes the compilation."""
        import torch

        try:
            self._infer(np.zeros((batch, *map(int, self._shape)), self._dtype))
        except torch._dynamo.exc.TorchDynamoException as error:
            said = str(error).strip().partition("\n")[0]
            hint = "check the C++ compiler, or use --runtime torch"
            raise MissingDependencyError(f"{self.runner}: cannot compile the model: {said}", hint) from error

    def _infer(self, images: Images) -> Logits:
        import torch

        with torch.inference_mode():
            logits: Logits = self._model(torch.from_numpy(images).to(self._device)).cpu().numpy()
        return logits

    def facts(self) -> dict[str, Any]:
        """Return version, device and threads."""
        import torch

        return {
            "version": torch.__version__,
            "device": str(self._device),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "compiled": self._compiled,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "io": "host arrays, copies inside run()",
        }
