"""Write an example app around a bundle, as a folder (`vitdeploy embed`)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from string import Template

from runtime.apps.pictures import png, reference_pictures, widest_margin
from runtime.apps.settings import Settings, settings_of
from runtime.apps.targets import TARGETS, TEMPLATES
from runtime.bundle.schema import MODEL, Bundle
from vitnla.common.files import atomic_folder
from vitnla.common.schema import Record

SAMPLE = "sample.png"


class App(Record):
    """The example that was written."""

    path: str
    target: str
    bundle: str
    files: tuple[str, ...]
    model_bytes: int
    expected: str
    """The label of the sample image."""
    start: str
    """The commands to start it, in its folder."""


def write_app(bundle: Bundle, target: str, destination: Path, *, replace: bool = False) -> App:
    """Write the example of a target around a bundle: the model, its constants, a sample image and what it must answer.

    Args:
        bundle: an opened bundle.
        target: a name of `TARGETS`.
        destination: the folder to make.
        replace: whether one that is there may be replaced.

    Raises:
        InputError: the target is unknown, the folder exists, or the bundle cannot be fed by an app.
    """
    chosen = TARGETS[target]
    settings = settings_of(bundle)
    _, answers = bundle.reference()
    index = widest_margin(answers)
    label = settings.label(answers[index])
    sample = png(reference_pictures(bundle, settings)[index])
    expected = {"image": SAMPLE, "label": label, "answers": answers[index].tolist()}
    with atomic_folder(destination, replace=replace) as folder:
        for model in bundle.folder.glob(f"{MODEL}*"):  # external weights too
            shutil.copyfile(model, folder / model.name)
        (folder / SAMPLE).write_bytes(sample)
        texts = {"settings.json": settings.to_json(), "expected.json": json.dumps(expected, indent=2) + "\n"}
        texts |= {name: (TEMPLATES / source).read_text(encoding="utf-8") for name, source in chosen.files.items()}
        texts["README.md"] = Template(texts["README.md"]).substitute(_words(bundle, settings, label))
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        files = tuple(sorted(path.name for path in folder.iterdir()))
    return App(
        path=str(destination), target=target, bundle=bundle.name, files=files, model_bytes=bundle.model_bytes(), expected=label,
        start=chosen.start,
    )  # fmt: skip


def _words(bundle: Bundle, settings: Settings, label: str) -> dict[str, str]:
    """Return the words about the model in the README of an example."""
    height, width = settings.resizing.crop
    outputs = "features" if settings.answers == "embedding" else "classes"
    return {
        "name": bundle.name,
        "label": label,
        "model": f"{settings.precision}, {bundle.model_bytes() / 1e6:.1f} MB, {len(settings.labels)} {outputs}",
        "input": f"{settings.input.dtype} {'colour' if settings.channels == 3 else 'grey'} images of {height} x {width}",
        "limit": f"{settings.max_pixels // 1_000_000} million",
    }
