"""An `npz:FILE` data set without the training images that a model has seen: those from a number on, and the whole test split.

python scripts/later_images.py --data fashion-mnist:DIR --first 24000 -o free.npz

For a model that was trained on the first 24,000 images of Fashion-MNIST: what calibrates, teaches and decides is then new to it.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np

from export.cli.output import complain, say
from vitnla.common.errors import InputError, VitDeployError
from vitnla.common.files import write_atomically
from vitnla.data.load import load_data


def later_images(spec: str, first: int) -> bytes:
    """The data set as an npz, in the order of the source, whose validation images are its last training images.

    Raises:
        InputError: there are not so many training images, or the images are files.
    """
    data = load_data(spec)
    parts = [data.split("train"), data.split("validation")]
    count = sum(len(part) for part in parts)
    if not 0 <= first < count:
        raise InputError(
            f"expected --first below the {count:,} training images of {spec}, got {first:,}", "such as --first 24000"
        )
    test = data.split("test")
    images = np.concatenate([*(part.pixels() for part in parts), test.pixels()])[first:]
    labels = np.concatenate([*(part.labels for part in parts), test.labels])[first:]
    splits = np.repeat(["train", "test"], [count - first, len(test)])
    stream = io.BytesIO()
    np.savez_compressed(stream, images=images, labels=labels, splits=splits)
    return stream.getvalue()


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data SPEC of images held in memory, such as fashion-mnist:DIR")
    parser.add_argument("--first", type=int, required=True, help="number of the first training image to keep")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    try:
        write_atomically(asked.output, later_images(asked.data, asked.first))
    except VitDeployError as error:
        complain(error)
        return error.exit_code
    say(f"{asked.output}: the training images of {asked.data} from {asked.first:,} on, and its test images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
