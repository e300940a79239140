"""Make the assets that ship with the package: the demo data, and the demo ViT and its smaller control in float16.

python scripts/pack_demo.py FASHION_MNIST_FOLDER [SPEC=TRAINED_RUN_FOLDER ...]     such as demo=artifacts/demo-run demo-small=artifacts/small-run
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from vitnla.data.demo import ASSET, pack_demo
from vitnla.data.formats.fashion_mnist import load_fashion_mnist
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import load_checkpoint, save_checkpoint
from vitnla.sources.description import LABELS, PREPROCESSING, Labels, write_description
from vitnla.sources.load import PACKAGED


def main() -> None:
    """Pack the data, and the models whose runs are given."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-") or not all(word.partition("=")[0] in PACKAGED for word in sys.argv[2:]):
        sys.exit(__doc__)
    pack_demo(load_fashion_mnist(Path(sys.argv[1])), ASSET)
    for word in sys.argv[2:]:
        spec, _, run = word.partition("=")
        folder = PACKAGED[spec]
        save_checkpoint(load_checkpoint(Path(run)), folder, torch.float16, replace=True)
        write_description(folder, Preprocessing.read(Path(run) / PREPROCESSING), Labels.read(Path(run) / LABELS).labels)


if __name__ == "__main__":
    main()
