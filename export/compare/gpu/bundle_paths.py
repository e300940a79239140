"""ONNX Runtime's CUDA and TensorRT providers, TensorRT and TensorRT for RTX, in fp16. Not yet run on a GPU."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np

from export.bundle.plan import ExportOptions
from export.compare.gpu.bundles import random_bundle
from export.compare.gpu.paths import GpuPath, Ready
from export.compare.gpu.records import Key
from export.compare.gpu.shapes import BATCHES, vit_config
from runtime.bundle.engines import NOT_RTX
from runtime.machine.facts import usable_cores
from runtime.runners.availability import Availability
from runtime.runners.base import Images, RunOptions
from runtime.runners.ort import OrtSession, check_provider
from runtime.runners.trt.cuda import Stream, compute_capability, cuda_availability
from runtime.runners.trt.library import FLAVORS, RTX, Flavor
from runtime.runners.trt.runner import TrtSession, find_engine
from vitnla.common.errors import MissingDependencyError

_PROFILE = f"{BATCHES[0]}:{BATCHES[-2]}:{BATCHES[-1]}"
_PROVIDER_OPTIONS = {"cuda": {}, "tensorrt": {"trt_fp16_enable": "1"}}


def bundle_paths(work: Path, command: str) -> tuple[GpuPath, ...]:
    """Return the paths that run bundles, which are stored in the folder `work` with `command` in their manifests."""
    providers = (
        GpuPath(f"ort-{name}", "fp16", partial(_provider_availability, name), partial(_prepare_ort, work, command, name))
        for name in _PROVIDER_OPTIONS
    )
    engines = (
        GpuPath(name, "fp16", partial(_engine_availability, flavor), partial(_prepare_engine, work, command, flavor))
        for name, flavor in FLAVORS.items()
    )
    return (*providers, *engines)


def _provider_availability(provider: str) -> Availability:
    if not (found := cuda_availability()).ok:
        return found
    try:
        check_provider(provider)
    except MissingDependencyError as error:
        return Availability(False, error.message, error.hint)
    return Availability(True)


def _engine_availability(flavor: Flavor) -> Availability:
    found = flavor.can_run()
    if found.ok and flavor is RTX:
        major, minor = compute_capability()
        if 10 * major + minor in NOT_RTX:
            return Availability(False, f"TensorRT for RTX does not support SM{major}{minor}", "the path trt is for this GPU")
    return found


def _folder(work: Path, key: Key, kind: str) -> Path:
    return work / f"{key.shape.size.replace('/', '')}-{key.shape.variant}-{kind}"


def _images(bundle_input: tuple[int, ...], batch: int) -> Images:
    return np.random.default_rng(0).standard_normal((batch, *bundle_input), np.float32)


@cache
def _ort_stream() -> Stream:
    """Return the stream of the whole run: a session must not outlive its stream, and ends only with its last reference."""
    return Stream()


def _prepare_ort(work: Path, command: str, provider: str, key: Key) -> Ready:
    bundle = random_bundle(vit_config(key.shape), _folder(work, key, "fp16"), ExportOptions(precision="fp16"), command)
    stream = _ort_stream()
    options = {**_PROVIDER_OPTIONS[provider], "user_compute_stream": str(stream.handle)}
    session = OrtSession("ort", bundle, RunOptions(usable_cores(), provider, key.batch), options)
    config = vit_config(key.shape)
    launch, _ = session.bind(_images((config.channels, config.image_size, config.image_size), key.batch))
    facts = {**session.facts(), "io": "bound: images and logits on the device"}
    return Ready(launch, stream.synchronise, stream.elapsed_ms, facts, lambda: None)


def _prepare_engine(work: Path, command: str, flavor: Flavor, key: Key) -> Ready:
    capability = compute_capability()
    kind = f"{flavor.name}-{flavor.library().__version__}-SM{capability[0]}{capability[1]}"
    options = ExportOptions(engine=flavor.name, capabilities=("CURRENT",), engine_precisions=("fp16",), profile=_PROFILE)
    config = vit_config(key.shape)
    bundle = random_bundle(config, _folder(work, key, kind), options, command)
    session = TrtSession(flavor.name, bundle, flavor, find_engine(bundle, flavor, capability, key.batch, "fp16"))
    session.place(_images((config.channels, config.image_size, config.image_size), key.batch))
    facts = {**session.facts(), "io": "images and logits on the device"}
    return Ready(session.enqueue, session.stream.synchronise, session.stream.elapsed_ms, facts, session.close)
