"""`vitdeploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.cli.output import Json, assignments, command_line, emit, numbers, say, status
from vitnla.common.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle.schema import Bundle

_METHOD, _BUNDLE, _ENGINE, _CHECK, _SOURCE = "Method", "Bundle", "Engine", "Verification", "What the model's files do not say"
_TORCH_ONLY = (
    "opset", "precision", "runtime", "int8_activations", "quantization_images", "embed_preprocessing", "input_size", "output_kind", "engine", "capability",
    "engine_precision", "builder_optimization_level", "version_compatible", "hardware_compatible", "batch", "target_latency",
    "latency_batch", "latency_runtime", "image_size", "model_args", "weights_key",
)  # fmt: skip
_REFERENCES = {"torch": "torch", "original-onnx": "the original graph", "rewritten-onnx": "the rewritten graph, not optimised"}


def export(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="SPEC (docs/models.md): demo, a folder, hf:FOLDER_OR_ID, timm:NAME, torchvision:NAME, onnx:FILE.")] = "demo",
    method: Annotated[str, typer.Option(help="Decomposition; see vitdeploy methods.", rich_help_panel=_METHOD)] = "svd",
    target_macs: Annotated[float | None, typer.Option(help="MACs of the encoder's linears to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    target_latency: Annotated[float | None, typer.Option(help="auto: share of the blocks' predicted time to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    latency_batch: Annotated[int, typer.Option(min=1, help="Batch size that --target-latency is about.", rich_help_panel=_METHOD)] = 1,
    latency_runtime: Annotated[str, typer.Option(help="Where, such as ort, ort:int8, openvino:bf16; a wrong one lists all.", rich_help_panel=_METHOD)] = "ort",
    rank: Annotated[int | None, typer.Option(help="The same rank for every linear.", rich_help_panel=_METHOD)] = None,
    energy: Annotated[float | None, typer.Option(help="Share of the squared spectrum to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    weighting: Annotated[str | None, typer.Option(help="none, gram, cholesky or centered.", rich_help_panel=_METHOD)] = None,
    allocation: Annotated[str | None, typer.Option(help="uniform or knapsack, for --target-macs.", rich_help_panel=_METHOD)] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, any setting of the method; repeatable.", rich_help_panel=_METHOD)] = None,
    data: Annotated[str, typer.Option(help="Data SPEC (docs/data.md): calibration and test images.", rich_help_panel=_CHECK)] = "demo",
    class_map: Annotated[Path | None, typer.Option(help="Lines of DATA CLASS, tab, MODEL CLASS (or #NUMBER).", rich_help_panel=_CHECK)] = None,
    calibration_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole split.", rich_help_panel=_CHECK)] = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.", rich_help_panel=_CHECK)] = None,
    allow_parity_failure: Annotated[bool, typer.Option(help="Write the bundle all the same, and mark it.", rich_help_panel=_CHECK)] = False,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8, int8-dynamic or fp8.", rich_help_panel=_BUNDLE)] = "fp32",
    runtime: Annotated[str | None, typer.Option(help="ort, openvino, trt, ...: what the precision is for.", rich_help_panel=_BUNDLE)] = None,
    int8_activations: Annotated[str, typer.Option(help="For openvino: asymmetric or symmetric.", rich_help_panel=_BUNDLE)] = "asymmetric",
    quantization_images: Annotated[int, typer.Option(min=1, help="Calibration images that set the ranges of int8 and fp8.", rich_help_panel=_BUNDLE)] = 256,
    opset: Annotated[int | None, typer.Option(help="ONNX opset, 18 to 23. Default: 20, or 21 for fp8.", rich_help_panel=_BUNDLE)] = None,
    embed_preprocessing: Annotated[bool, typer.Option("--embed-preprocessing", help="The graph takes uint8 [B, H, W, C].", rich_help_panel=_BUNDLE)] = False,
    input_size: Annotated[str | None, typer.Option(help="HxW of those pixels; the graph resizes. Default: the model's.", rich_help_panel=_BUNDLE)] = None,
    output_kind: Annotated[str, typer.Option(help="logits or, with --embed-preprocessing, probabilities.", rich_help_panel=_BUNDLE)] = "logits",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: artifacts/MODEL-METHOD-SETTINGS.", rich_help_panel=_BUNDLE)] = None,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.", rich_help_panel=_BUNDLE)] = False,
    engine: Annotated[str, typer.Option(help="none, trt or trt-rtx.", rich_help_panel=_ENGINE)] = "none",
    capability: Annotated[str, typer.Option(help="GPU capabilities for trt-rtx, such as SM86,SM89. Default: the library's own.", rich_help_panel=_ENGINE)] = "",
    engine_precision: Annotated[str, typer.Option(help="fp32,fp16 by default, bf16; of an int8 or fp8 model its own.", rich_help_panel=_ENGINE)] = "",
    builder_optimization_level: Annotated[int | None, typer.Option(help="trt: 0, quick to compile, to 5.", rich_help_panel=_ENGINE)] = None,
    version_compatible: Annotated[bool, typer.Option("--version-compatible", help="trt: later versions can load it.", rich_help_panel=_ENGINE)] = False,
    hardware_compatible: Annotated[bool, typer.Option("--hardware-compatible", help="trt: GPUs from Ampere on can load it.", rich_help_panel=_ENGINE)] = False,
    batch: Annotated[str, typer.Option(help="Batch sizes MIN:OPT:MAX of the engine.", rich_help_panel=_ENGINE)] = "1:16:64",
    preprocessing: Annotated[Path | None, typer.Option(help="JSON file; see docs. Default: the model's own.", rich_help_panel=_SOURCE)] = None,
    mean: Annotated[str, typer.Option(help="Per channel, such as 0.485,0.456,0.406; instead of --preprocessing.", rich_help_panel=_SOURCE)] = "",
    std: Annotated[str, typer.Option(help="Per channel.", rich_help_panel=_SOURCE)] = "",
    interpolation: Annotated[str | None, typer.Option(help="nearest, bilinear or bicubic.", rich_help_panel=_SOURCE)] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line. Default: the model's own.", rich_help_panel=_SOURCE)] = None,
    image_size: Annotated[int | None, typer.Option(min=1, help="Resamples positions. Default: the weights' own.", rich_help_panel=_SOURCE)] = None,
    model_args: Annotated[list[str] | None, typer.Option(help="NAME=VALUE,... of timm, such as global_pool=avg; repeatable.", rich_help_panel=_SOURCE)] = None,
    weights_key: Annotated[str | None, typer.Option(help="Entry or prefix in a checkpoint, such as state_dict.", rich_help_panel=_SOURCE)] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Decompose a trained ViT and write it as a verified ONNX bundle."""
    from export.from_onnx.describe import Given
    from export.from_onnx.source import PREFIX
    from vitnla.sources.options import SourceOptions, parse_model_args

    cuts = {
        "target_macs": target_macs,
        "target_latency": target_latency,
        "rank": rank,
        "energy": energy,
        "weighting": weighting,
        "allocation": allocation,
    }
    settings = {name: value for name, value in cuts.items() if value is not None} | assignments(setting or ())
    source = SourceOptions(
        image_size=image_size, model_args=parse_model_args(model_args or ()), weights_key=weights_key, preprocessing=preprocessing,
        mean=numbers(mean, "--mean") if mean else None, std=numbers(std, "--std") if std else None, interpolation=interpolation, labels=labels,
    )  # fmt: skip
    if model.startswith(PREFIX):
        from export.from_onnx.export_onnx import export_onnx
        from export.from_onnx.request import OnnxRequest

        _refuse_torch_options(context)
        given = Given(source.preprocessing, source.mean, source.std, source.interpolation, source.labels)
        graph = OnnxRequest(
            model, data, method, settings, output, command_line(), given, eval_images=eval_images,
            calibration_images=calibration_images, allow_parity_failure=allow_parity_failure, force=force,
            class_map=class_map,
        )  # fmt: skip
        with status() as on_step:
            bundle = export_onnx(graph, on_step)
    else:
        from export.bundle.plan import ExportOptions
        from export.engine.compiler import BuildOptions
        from export.graph.preprocessing import parse_embedding
        from export.latency.target import parse_latency_target
        from export.pipeline import ExportRequest, export_model

        if "target_latency" not in settings and (
            idle := [name for name in ("latency_batch", "latency_runtime") if _typed(context, name)]
        ):
            raise InputError(
                f"--{idle[0].replace('_', '-')} needs --target-latency", "give the share of the time to keep, such as 0.6"
            )
        options = ExportOptions(
            opset=opset, embedding=parse_embedding(embed_preprocessing, input_size, output_kind), precision=precision,
            runtime=runtime, int8_activations=int8_activations, quantization_images=quantization_images,
            engine=engine, capabilities=tuple(filter(None, capability.split(","))),
            engine_precisions=tuple(filter(None, engine_precision.split(","))), profile=batch,
            build=BuildOptions(builder_optimization_level, version_compatible, hardware_compatible), eval_images=eval_images,
            allow_parity_failure=allow_parity_failure, force=force,
        )  # fmt: skip
        request = ExportRequest(
            model, data, method, settings, output, options, command_line(), calibration_images, latency_batch,
            latency_target=parse_latency_target(latency_runtime), source_options=source, class_map=class_map,
        )  # fmt: skip
        with status() as on_step:
            bundle = export_model(request, on_step, lambda note: say(f"note: {note}"))
    _summarise(bundle)
    if json:
        emit(_record(bundle))


def _refuse_torch_options(context: typer.Context) -> None:
    """Options that say how a torch model becomes a graph: here there is a graph already."""
    if wrong := [f"--{name.replace('_', '-')}" for name in _TORCH_ONLY if _typed(context, name)]:
        hint = "leave it out: the graph keeps its opset and float32, and engines are built from models in torch so far"
        raise InputError(f"{' and '.join(wrong)}: not available for onnx:FILE", hint)


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _summarise(bundle: Bundle) -> None:
    from runtime.report.text import percent
    from runtime.results.statistics import chance_warning

    manifest = bundle.manifest
    accuracy = manifest.accuracy
    measured = (
        f"top-1 not measured on {accuracy.images:,} {accuracy.split} images: {accuracy.not_measured}"
        if accuracy.top1 is None
        else f"top-1 {accuracy.top1:.2%} (dense {percent(accuracy.dense_top1)}%) on {accuracy.images:,} {accuracy.split} images"
    )
    agreement = "" if accuracy.agreement is None else f", agreement {accuracy.agreement:.2%}"
    say(
        f"{bundle.folder}: {manifest.method}{', distilled' if manifest.distillation else ''}, {manifest.macs.ratio:.2f} x the dense linears' MACs, "
        f"{manifest.parameters.ratio:.2f} x their parameters, {bundle.model_bytes() / 2**20:.1f} MiB\n"
        f"{measured}{agreement}; ONNX against {_REFERENCES[manifest.reference]}: {manifest.parity.max_rel:.1e} relative"
    )
    for loss in manifest.losses:
        change = "" if loss.lost_points is None else f"{0 - loss.lost_points:+.2f} points, "
        flips = "" if accuracy.agreement is None else f"{loss.flips:,} classes changed, "
        say(f"{loss.stage} ({loss.after}): {change}{flips}logits by {loss.logit_error:.1%}")
    for record in bundle.engine_records():
        say(
            f"{record.file}: {record.runtime} {record.capability} {record.precision}, {'reused' if record.reused else f'built in {record.build_seconds:.1f} s'}"
        )
    if accuracy.dense_top1 is not None:
        classes = len(accuracy.columns or manifest.labels)
        warning = chance_warning(round(accuracy.dense_top1 * accuracy.images), accuracy.images, classes)
        if warning is not None:
            say(f"warning: the dense model's {warning}")


def _record(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.folder),
        "method": manifest.method,
        "macs": {**manifest.macs.model_dump(), "ratio": manifest.macs.ratio},
        "parameters": {**manifest.parameters.model_dump(), "ratio": manifest.parameters.ratio},
        "precision": manifest.precision,
        "runtime": manifest.runtime,
        "quantization": manifest.quantization and manifest.quantization.model_dump(),
        "losses": [loss.model_dump() for loss in manifest.losses],
        "accuracy": manifest.accuracy.model_dump(include={"dense_top1", "top1", "agreement", "images", "not_measured"}),
        "parity": {"max_rel": manifest.parity.max_rel, "reference": manifest.reference},
        "distillation": manifest.distillation and manifest.distillation.model_dump(),
        "engines": [
            {"path": str(bundle.folder / record.file), **record.model_dump(include={"runtime", "capability", "precision"})}
            for record in bundle.engine_records()
        ],
    }
