"""Classify images with model.onnx. Without arguments: check that sample.png gets the answer that it got at export."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps

HERE = Path(__file__).parent
FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
Image.MAX_IMAGE_PIXELS = None  # `max_pixels` of settings.json takes its place, and is an error, not a warning


class Classifier:
    """The model, and what it needs to know about images."""

    def __init__(self, folder: Path = HERE) -> None:
        self.settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.labels: list[str] = self.settings["labels"]
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")  # int8 without overflow on processors without VNNI
        self.session = onnxruntime.InferenceSession(folder / self.settings["model"], options, providers=["CPUExecutionProvider"])

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """The model's answers [classes] for one image: logits, probabilities or an embedding, as settings.json says."""
        answers = self.session.run([self.settings["output"]["name"]], {self.settings["input"]["name"]: self.prepare(image)})[0]
        return np.asarray(answers[0], np.float32)

    def label(self, answers: NDArray[np.float32]) -> str:
        """The class of the largest answer; an embedding has no classes."""
        if self.settings["answers"] == "embedding":
            return f"embedding of {len(answers)} values"
        return self.labels[int(answers.argmax())]

    def probabilities(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax of logits; probabilities stay what they are."""
        if self.settings["answers"] == "probabilities":
            return answers
        powers = np.exp(answers - answers.max())
        return np.asarray(powers / powers.sum(), np.float32)

    def prepare(self, image: Image.Image) -> NDArray[np.uint8 | np.float32]:
        """The model's input: uint8 [1, H, W, C] where the graph scales pixels itself, else float32 [1, C, H, W]."""
        pixels = np.asarray(self.cut(image), np.uint8)
        pixels = pixels.reshape(1, *pixels.shape[:2], self.settings["channels"])
        if self.settings["input"]["dtype"] == "uint8":
            return pixels
        mean, std = (np.asarray(self.settings[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std"))
        scaled = pixels.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
        return np.ascontiguousarray((scaled - mean) / std)

    def cut(self, image: Image.Image) -> Image.Image:
        """The part of an image that the model sees, in its size and channels."""
        resizing = self.settings["resizing"]
        (height, width), (crop_height, crop_width) = resizing["to"], resizing["crop"]
        kernel = FILTERS[resizing["interpolation"]]
        image = image.convert("L" if self.settings["channels"] == 1 else "RGB")
        if resizing["fit"] == "square":  # the central square; cropped first, so that nothing outside it blends in
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
        elif resizing["fit"] == "shortest":  # keep the shape: the shorter side gets the wanted length
            rest = int(width * max(image.size) / min(image.size))
            width, height = (width, rest) if image.width <= image.height else (rest, height)
        image = image.resize((width, height), kernel)
        left, top = (self.offset(width - crop_width), self.offset(height - crop_height))
        return image.crop((left, top, left + crop_width, top + crop_height))

    def offset(self, margin: int) -> int:
        """Return the offset of the crop when `margin` pixels are left over."""
        return margin // 2 if self.settings["resizing"]["crop_rounding"] == "down" else round(margin / 2)

    def read(self, path: Path) -> Image.Image:
        """Decode an image file to 8-bit grey or RGB, upright, on the background.

        Raises:
            ValueError: the file is missing, too large, truncated or no image; one line that says so.
        """
        try:
            with Image.open(path) as image:
                pixels, limit = image.width * image.height, self.settings["max_pixels"]
                if pixels > limit:
                    raise ValueError(f"expected at most {limit:,} pixels, got {image.width} x {image.height}")
                image.load()  # of an animation this is the first frame
                return self.flatten(eight_bits(ImageOps.exif_transpose(image)))
        # Pillow's decoders raise SyntaxError for broken headers and many others for broken contents.
        except (OSError, SyntaxError, EOFError, IndexError, MemoryError) as error:
            raise ValueError(f"{path}: expected a complete image file, got: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def flatten(self, image: Image.Image) -> Image.Image:
        """Transparent pixels show the background."""
        if not image.has_transparency_data:
            return image if image.mode == "L" else image.convert("RGB")
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*self.settings["background"], 255)), image).convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits as grey of 8: Pillow's own conversion would clip it. Colour of 16 bits Pillow opens as 8.

    Raises:
        ValueError: the pixels are 32-bit or floating point, whose white nobody knows.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits per channel, got an image of mode {image.mode}")
    return image


def report(classifier: Classifier, path: Path, as_json: bool) -> None:
    """Classify one file and print what it is."""
    image = classifier.read(path)
    start = time.perf_counter_ns()
    answers = classifier(image)
    milliseconds = (time.perf_counter_ns() - start) / 1e6
    label = classifier.label(answers)
    if as_json:
        print(json.dumps({"image": str(path), "label": label, "answers": answers.tolist(), "milliseconds": milliseconds}))
        return
    print(f"{path} ({milliseconds:.1f} ms)")
    if classifier.settings["answers"] == "embedding":
        first = ", ".join(f"{value:.4f}" for value in answers[:5])
        print(f"  {label}, of length {np.linalg.norm(answers):.4f}: {first}, ...")
        return
    probabilities = classifier.probabilities(answers)
    for index in np.argsort(-probabilities)[:5]:
        print(f"  {probabilities[index]:6.1%}  {classifier.labels[index]}")


def check(classifier: Classifier, folder: Path = HERE) -> bool:
    """Return True if the sample gets its expected answer, within the tolerance of the model's precision."""
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    wanted = np.asarray(expected["answers"], np.float32)
    answers = classifier(classifier.read(folder / expected["image"]))
    label = classifier.label(answers)
    difference = float(np.abs(answers - wanted).max() / np.abs(wanted).max())
    good = difference <= float(classifier.settings["tolerance"]) and label == str(expected["label"])
    print(
        f"{expected['image']}: {label}, expected {expected['label']}; answers differ by {difference:.1e}: {'ok' if good else 'WRONG'}"
    )
    return good


def main() -> int:
    """Exit code 0; 1 where the sample's answer is wrong; 2 where an image cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, help="image files")
    parser.add_argument("--json", action="store_true", help="one JSON object per image, with every answer")
    options = parser.parse_args()
    classifier = Classifier()
    if not options.images:
        return 0 if check(classifier) else 1
    failed = False
    for path in options.images:
        try:
            report(classifier, path, options.json)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
