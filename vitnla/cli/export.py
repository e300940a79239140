"""`vitdeploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitnla.cli.output import Json, assignments, command_line, emit, say, status

if TYPE_CHECKING:
    from runtime.bundle import Bundle

_METHOD, _BUNDLE, _ENGINE, _CHECK = "Method", "Bundle", "Engine", "Verification"


def export(
    model: Annotated[str, typer.Option(help="SPEC (docs/models.md): demo, a folder, hf:FOLDER_OR_ID, timm:NAME, torchvision:NAME.")] = "demo",
    method: Annotated[str, typer.Option(help="Decomposition; see vitdeploy methods.", rich_help_panel=_METHOD)] = "svd",
    target_macs: Annotated[float | None, typer.Option(help="MACs of the encoder's linears to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    target_latency: Annotated[float | None, typer.Option(help="auto: share of the blocks' predicted time to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    latency_batch: Annotated[int, typer.Option(min=1, help="Batch size that --target-latency is about.", rich_help_panel=_METHOD)] = 1,
    rank: Annotated[int | None, typer.Option(help="The same rank for every linear.", rich_help_panel=_METHOD)] = None,
    energy: Annotated[float | None, typer.Option(help="Share of the squared spectrum to keep, in (0, 1].", rich_help_panel=_METHOD)] = None,
    weighting: Annotated[str | None, typer.Option(help="none, gram, cholesky or centered.", rich_help_panel=_METHOD)] = None,
    allocation: Annotated[str | None, typer.Option(help="uniform or knapsack, for --target-macs.", rich_help_panel=_METHOD)] = None,
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, any setting of the method; repeatable.", rich_help_panel=_METHOD)] = None,
    data: Annotated[str, typer.Option(help="Data SPEC (docs/data.md): calibration and test images.", rich_help_panel=_CHECK)] = "demo",
    calibration_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole split.", rich_help_panel=_CHECK)] = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.", rich_help_panel=_CHECK)] = None,
    allow_parity_failure: Annotated[bool, typer.Option(help="Write the bundle all the same, and mark it.", rich_help_panel=_CHECK)] = False,
    precision: Annotated[str, typer.Option(help="Of the ONNX model: fp32.", rich_help_panel=_BUNDLE)] = "fp32",
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 23.", rich_help_panel=_BUNDLE)] = 20,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: artifacts/MODEL-METHOD-SETTINGS.", rich_help_panel=_BUNDLE)] = None,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.", rich_help_panel=_BUNDLE)] = False,
    engine: Annotated[str, typer.Option(help="none, trt or trt-rtx.", rich_help_panel=_ENGINE)] = "none",
    capability: Annotated[str, typer.Option(help="GPU capabilities for trt-rtx, such as SM86,SM89. Default: the library's own.", rich_help_panel=_ENGINE)] = "",
    engine_precision: Annotated[str, typer.Option(help="fp32, fp16 or both, separated by commas.", rich_help_panel=_ENGINE)] = "fp32,fp16",
    batch: Annotated[str, typer.Option(help="Batch sizes MIN:OPT:MAX of the engine.", rich_help_panel=_ENGINE)] = "1:16:64",
    json: Json = False,
) -> None:  # fmt: skip
    """Decompose a trained ViT and write it as a verified ONNX bundle."""
    from export.pipeline import ExportOptions
    from export.run import ExportRequest, export_model

    given = {
        "target_macs": target_macs,
        "target_latency": target_latency,
        "rank": rank,
        "energy": energy,
        "weighting": weighting,
        "allocation": allocation,
    }
    options = ExportOptions(
        opset=opset, precision=precision, engine=engine, capabilities=tuple(filter(None, capability.split(","))),
        engine_precisions=tuple(engine_precision.split(",")), profile=batch, eval_images=eval_images,
        allow_parity_failure=allow_parity_failure, force=force,
    )  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None} | assignments(setting or ())
    request = ExportRequest(model, data, method, settings, output, options, command_line(), calibration_images, latency_batch)
    with status() as on_step:
        bundle = export_model(request, on_step)
    _summarise(bundle)
    if json:
        emit(_record(bundle))


def _summarise(bundle: Bundle) -> None:
    manifest = bundle.manifest
    accuracy = manifest.accuracy
    say(
        f"{bundle.folder}: {manifest.method}{', distilled' if manifest.distillation else ''}, {manifest.macs.ratio:.2f} x the dense linears' MACs, "
        f"{manifest.parameters.ratio:.2f} x their parameters, {bundle.model_bytes() / 2**20:.1f} MiB\n"
        f"top-1 {accuracy.top1:.2%} (dense {accuracy.dense_top1:.2%}) on {accuracy.images:,} {accuracy.split} images, "
        f"agreement {accuracy.agreement:.2%}; ONNX against torch: {manifest.parity.max_rel:.1e} relative"
    )
    for record in bundle.engine_records():
        say(f"{record.file}: {record.runtime} {record.capability} {record.precision}, built in {record.build_seconds:.1f} s")


def _record(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.folder),
        "method": manifest.method,
        "macs": {**manifest.macs.model_dump(), "ratio": manifest.macs.ratio},
        "parameters": {**manifest.parameters.model_dump(), "ratio": manifest.parameters.ratio},
        "accuracy": manifest.accuracy.model_dump(include={"dense_top1", "top1", "agreement", "images"}),
        "parity": {"max_rel": manifest.parity.max_rel},
        "distillation": manifest.distillation and manifest.distillation.model_dump(),
        "engines": [
            {"path": str(bundle.folder / record.file), **record.model_dump(include={"runtime", "capability", "precision"})}
            for record in bundle.engine_records()
        ],
    }
