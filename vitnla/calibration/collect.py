"""One pass over calibration images: input moments and output sensitivity of each encoder linear."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics, Samples, Statistics
from vitnla.common.errors import InputError
from vitnla.data.image_files import Images
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer

Progress = Callable[[int, int], None]


def collect(
    model: VisionTransformer, images: Images, preprocessing: Preprocessing,
    batch_size: int = 32, on_progress: Progress = lambda done, total: None,
) -> Statistics:  # fmt: skip
    """Return second moments and mean of the input of every encoder linear, and the sensitivity of the logits to its output.

    Runs on the model's device and in its dtype; sums are float64 products of float64 inputs. A float32 product would
    lose the small directions of the Gram matrix, whose eigenvalues span ten orders of magnitude, below 1e-7 of the largest.

    The sensitivity of a linear with output y is tr(F) per element of y and token, with F the Fisher information of the
    class about y. The divergence of the classes' probabilities from their old ones is dyT F dy / 2 for a small change dy
    (Amari 1998); with the diagonal of F averaged to one number, as Optimal Brain Damage (LeCun et al. 1990) keeps only
    the diagonal, it is proportional to sensitivity x |dy|^2, in a unit that all linears share. One backward pass per
    batch estimates it (see `_fisher_probe`).

    Args:
        images: uint8 [N, H, W, C], or files.
        on_progress: called after each batch with the images done and their total.

    Raises:
        InputError: there are no images, or an activation is not finite (names the linear).
    """
    if not len(images):
        raise InputError("expected at least one calibration image, got 0", "choose data with a calibration split")
    parameter = next(model.parameters())
    signs = torch.Generator().manual_seed(0)
    names = model.linear_names()
    sums = {key: _Sums(model.linear(*key)) for key in names}
    with _recording(sums):
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(preprocessing(images[start : start + batch_size])).to(parameter)
            with torch.no_grad():
                tokens = model.embed(batch)
            with torch.enable_grad():
                logits = model.classify(model.encode(tokens.requires_grad_()))
            gradients = torch.autograd.grad(logits, [sums[key].output for key in names], _fisher_probe(logits, signs))
            for key, gradient in zip(names, gradients, strict=True):
                sums[key].squared_gradient += float(gradient.double().square().sum())
            on_progress(min(start + batch_size, len(images)), len(images))
    linears = {key: sums[key].finish(key) for key in names}
    return Statistics(linears, len(images), len(images) * model.config.tokens, Samples(images, preprocessing))


def _fisher_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw random v [B, classes] with E[v vT] = diag(p) - p pT, the Fisher information of the logits, p = softmax(logits).

    So E|JT v|^2 = tr(JT (diag(p) - p pT) J) for the derivative J of the logits. This is Hutchinson's estimator (1990),
    with random signs s and v = sqrt(p) s - p (sqrt(p)T s); it varies less than drawing a class for each image does.
    """
    p = logits.detach().softmax(-1)
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(p) * 2 - 1
    scaled = p.sqrt() * signs
    return scaled - p * scaled.sum(-1, keepdim=True)


class _Sums:
    """Running sums over the input tokens of one linear."""

    def __init__(self, linear: nn.Module) -> None:
        self.linear = linear
        self.tokens = 0
        self.squared_gradient = 0.0

    def record(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
        if not self.tokens:
            self.gram, self.sum = x.new_zeros(x.shape[1], x.shape[1]), x.new_zeros(x.shape[1])
        self.gram.addmm_(x.T, x)
        self.sum += x.sum(0)
        self.tokens += len(x)
        self.output = output

    def finish(self, key: tuple[int, LinearName]) -> LinearStatistics:
        block, name = key
        if not torch.isfinite(self.gram).all():
            hint = "check the weights and the preprocessing"
            raise InputError(f"block {block} {name}: expected finite activations, got NaN or infinity", hint)
        gram = (self.gram / self.tokens).cpu()
        sensitivity = self.squared_gradient / (self.tokens * self.output.shape[-1])
        return LinearStatistics((gram + gram.T) / 2, (self.sum / self.tokens).cpu(), self.tokens, sensitivity)


@contextlib.contextmanager
def _recording(sums: dict[tuple[int, LinearName], _Sums]) -> Iterator[None]:
    """Register hooks on every linear for the duration of the context; they are removed on errors too."""
    with contextlib.ExitStack() as stack:
        for entry in sums.values():
            stack.callback(entry.linear.register_forward_hook(entry.record).remove)
        yield
