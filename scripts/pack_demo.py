"""Make the two assets that ship with the package: the demo data, and the demo ViT in float16.

python scripts/pack_demo.py FASHION_MNIST_FOLDER [TRAINED_RUN_FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from vitnla.data.demo import ASSET, pack_demo
from vitnla.data.fashion_mnist import load_fashion_mnist
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import load_checkpoint, save_checkpoint
from vitnla.sources.description import LABELS, PREPROCESSING, Labels, write_description
from vitnla.sources.dispatch import DEMO_MODEL


def main() -> None:
    """Pack the data, and the model where a run is given."""
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    pack_demo(load_fashion_mnist(Path(sys.argv[1])), ASSET)
    if len(sys.argv) == 3:
        run = Path(sys.argv[2])
        save_checkpoint(load_checkpoint(run), DEMO_MODEL, torch.float16, replace=True)
        write_description(DEMO_MODEL, Preprocessing.read(run / PREPROCESSING), Labels.read(run / LABELS).labels)


if __name__ == "__main__":
    main()
