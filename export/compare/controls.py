"""Controls: the dense bundles that a decomposed one has to be compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from export.bundle.plan import ExportOptions
from export.pipeline import ExportRequest, export_model
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from runtime.runners.registry import known_traits
from vitnla.common.errors import InputError
from vitnla.sources.load import SMALLER, load_model

DENSE = "none"


@dataclass(frozen=True)
class Control:
    """A dense model of a source, in a precision, for a runtime."""

    source: str
    source_sha256: str
    precision: str
    runtime: str

    @property
    def name(self) -> str:
        """Name of the bundle and its folder; eight digits of the hash distinguish sources of equal name."""
        stem = Path(self.source.partition(":")[2] or self.source).name.partition("@")[0]
        words = [stem, self.source_sha256[:8], "dense", self.precision, *([] if self.runtime == "ort" else [self.runtime])]
        return "-".join(words)


def wanted_controls(bundles: Iterable[Bundle], runtimes: Iterable[str]) -> list[Control]:
    """Return the controls of the decomposed bundles that are not among the bundles yet.

    These are its source, dense at the bundle's own precision; the same in INT8 for each of the runtimes that run the graph; and where one ships with the
    package, a smaller dense model that was trained as the source was, at the bundle's own precision.
    """
    bundles, runtimes = tuple(bundles), tuple(runtimes)
    there = {_control(bundle) for bundle in bundles if bundle.manifest.method == DENSE}
    able = {name for name, traits in known_traits().items() if traits.runs_graph and "int8" in traits.export_precisions}
    wanted: dict[Control, None] = {}
    smaller = cache(lambda source: load_model(SMALLER[source]))  # the same for every bundle of a source
    for bundle in bundles:
        manifest = bundle.manifest
        if manifest.method == DENSE:
            continue
        wanted[_control(bundle)] = None
        if manifest.source in SMALLER:
            small = smaller(manifest.source)
            wanted[Control(small.spec, small.sha256, manifest.precision, manifest.runtime)] = None
        for runtime in runtimes:
            if runtime in able:
                wanted[Control(manifest.source, manifest.source_sha256, "int8", runtime)] = None
    return [control for control in wanted if control not in there]


def make_control(
    control: Control, data: str, folder: Path, command: str, on_step: Callable[[str], None], *, eval_images: int | None = None
) -> Bundle:
    """Export a control below `folder`, or open it if it was exported before.

    Raises:
        InputError: the source is gone or has changed since the decomposed bundle was made, or the folder holds something else.
    """
    destination = folder / control.name
    if (destination / MANIFEST).is_file():
        bundle = open_bundle(destination)
    else:
        options = ExportOptions(name=control.name, precision=control.precision, runtime=control.runtime, eval_images=eval_images)
        request = ExportRequest(control.source, data, DENSE, {}, destination, options, command)
        bundle = export_model(request, lambda text: on_step(f"control {control.name}: {text}"))
    if bundle.manifest.source_sha256 != control.source_sha256:
        raise InputError(
            f"{control.source} is no longer the model that the bundles were made of (its weights differ)",
            "export the bundles again, or leave out --controls",
        )
    return bundle


def _control(bundle: Bundle) -> Control:
    manifest = bundle.manifest
    return Control(manifest.source, manifest.source_sha256, manifest.precision, manifest.runtime)
