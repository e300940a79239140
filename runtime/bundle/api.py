"""The API of an application: open a bundle, open a session on it. No torch."""

from __future__ import annotations

from pathlib import Path

from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle, open_bundle
from runtime.process.affinity import usable_cpus
from runtime.runners.base import Session


def load_bundle(folder: str | Path) -> Bundle:
    """Open a bundle and check every hash.

    Raises:
        InputError: the folder is no bundle, its schema is unknown, or a file is missing or differs from its hash; names the file.
    """
    return open_bundle(Path(folder))


def open_session(
    bundle: Bundle | str | Path, runtime: str = "ort", *, provider: str = "cpu", threads: int | None = None, batch: int = 1
) -> Session:
    """Return a session whose `run` takes images as in `bundle.manifest.input` and returns float32 [batch, classes].

    Args:
        bundle: an opened bundle, or its folder.
        runtime: `ort`, `openvino`, `trt`, `trt-rtx`; those that take a precision, as `openvino:bf16`.
        provider: execution provider of ONNX Runtime: `cpu`, `cuda` or `tensorrt`.
        threads: CPU threads; `None` is all the cores that this process may use.
        batch: the batch size that will be run, for runtimes that must know it ahead.

    Raises:
        InputError: the bundle is damaged, or the runtime is unknown or refuses the graph.
        MissingDependencyError: the runtime cannot run here; the error gives the reason and the remedy.
    """
    opened = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    return Target.parse(runtime, provider).open(opened, threads or len(usable_cpus()), batch)
