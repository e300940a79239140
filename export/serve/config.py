"""`config.pbtxt` of a model, as Triton's own protobuf messages."""

from __future__ import annotations

from typing import Any

from export.serve.batches import Batches
from runtime.bundle.schema import Bundle, TensorSpec
from vitnla.common.errors import MissingDependencyError, unknown_name

LABELS, WARMUP = "labels.txt", "reference"
_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8"}
_DEVICES = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
_DELAY_US = 1000
"""Batching delay of a request in microseconds: about a tenth of a small ViT's latency on a CPU."""


def schema() -> Any:
    """Return Triton's protobuf messages.

    Raises:
        MissingDependencyError: the package that holds them is not installed.
    """
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        message = f"Triton's schema cannot be imported: {error}"
        raise MissingDependencyError(message, "pip install vitdeploy[triton]") from error
    return model_config_pb2


def instance_kind(device: str) -> str:
    """Return Triton's name of a device.

    Raises:
        InputError: the device is unknown.
    """
    if device not in _DEVICES:
        raise unknown_name("device", device, _DEVICES)
    return _DEVICES[device]


def model_config(name: str, backend: str, bundle: Bundle, chosen: Batches, instances: int, kind: str) -> Any:
    """Return the configuration of the bundle's model on `backend` (onnxruntime or tensorrt): batches, instances, warm-up, labels."""
    pb, manifest = schema(), bundle.manifest
    config = _plain(name, backend, (manifest.input, manifest.output), bundle.fixed_batch, chosen)
    if manifest.labels:
        config.output[0].label_filename = LABELS
    config.instance_group.add(count=instances, kind=pb.ModelInstanceGroup.Kind.Value(kind))
    if bundle.fixed_batch is None:
        config.dynamic_batching.preferred_batch_size.extend(chosen.preferred)
        config.dynamic_batching.max_queue_delay_microseconds = _DELAY_US
    for size in chosen.preferred if bundle.fixed_batch is None else (0,):  # 0: the dims hold the batch
        warm = config.model_warmup.add(name=f"batch {size}" if size else "fixed batch", batch_size=size)
        given = config.input[0]
        sample = pb.ModelWarmup.Input(data_type=given.data_type, dims=given.dims)
        if size:
            sample.input_data_file = f"{WARMUP}_{size}"
        else:
            sample.random_data = True
        warm.inputs[given.name].CopyFrom(sample)
    return config


def preprocess_config(name: str, specs: tuple[TensorSpec, TensorSpec], chosen: Batches) -> Any:
    """Return the configuration of the graph from pixels to the model's input, which is cheap and runs on the CPU."""
    pb = schema()
    config = _plain(name, "onnxruntime", specs, None, chosen)
    config.instance_group.add(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)
    return config


def ensemble_config(name: str, before: Any, model: Any) -> Any:
    """Return the configuration of the ensemble of `before` and `model`, from pixels to output; its steps form the batches."""
    pb = schema()
    config = pb.ModelConfig(name=name, platform="ensemble", max_batch_size=model.max_batch_size)
    config.input.add().CopyFrom(before.input[0])
    config.output.add().CopyFrom(model.output[0])
    first = config.ensemble_scheduling.step.add(model_name=before.name, model_version=-1)
    first.input_map[before.input[0].name] = before.input[0].name
    first.output_map[before.output[0].name] = "prepared"
    second = config.ensemble_scheduling.step.add(model_name=model.name, model_version=-1)
    second.input_map[model.input[0].name] = "prepared"
    second.output_map[model.output[0].name] = model.output[0].name
    return config


def as_text(config: Any) -> str:
    """Return a configuration in the protobuf text format of config.pbtxt."""
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def _plain(name: str, backend: str, specs: tuple[TensorSpec, TensorSpec], fixed: int | None, chosen: Batches) -> Any:
    """Return a configuration with name, backend, tensors and batch; with a fixed batch Triton does not batch, and dims include it."""
    pb = schema()
    config = pb.ModelConfig(name=name, backend=backend, max_batch_size=0 if fixed else chosen.largest)
    for spec, tensors in zip(specs, (config.input, config.output), strict=True):
        dims = spec.shape if fixed else spec.shape[1:]
        tensors.add(name=spec.name, data_type=pb.DataType.Value(_TYPES[spec.dtype]), dims=[int(size) for size in dims])
    return config
