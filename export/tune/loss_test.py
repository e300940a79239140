"""Sequential test of whether a bundle's loss of top-1 is within the budget: stops once enough images were run to decide."""

from __future__ import annotations

import contextlib
import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from export.graph.inputs import bundle_preparation
from export.tune.candidates import OnStep
from export.tune.request import TuneRequest
from runtime.bench.plan import Target
from runtime.bundle.schema import MODEL, Bundle
from runtime.results.statistics import Interval, wilson
from runtime.runners.batches import run_in_batches
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset, Split

FILE, CHUNK = "judged.json", 500
_SURE = 0.995
"""Confidence required of a verdict before the last image: testing after every chunk multiplies the chance of a wrong one."""


class PairedLoss(Record):
    """Loss of top-1 of a bundle on a runtime against the dense model, on the first `images` images."""

    images: int = 0
    lost: int = 0
    """Images that the dense model classifies correctly and this one does not."""
    gained: int = 0
    """The reverse."""

    def points(self, confidence: float = 0.95) -> Interval:
        """Return top-1 lost, in points, with its paired interval: only discordant images contribute."""
        one = self.lost - self.gained
        # One more discordant image than was seen: agreement on every image of a few does not mean that none would differ.
        deviation = math.sqrt(self.lost + self.gained + 1 - one**2 / self.images)
        half = float(ndtri((1 + confidence) / 2)) * deviation
        return Interval(*(100 * value / self.images for value in (one, one - half, one + half)))

    def describe(self) -> str:
        """Return a line such as `lost 0.62 points [0.13, 1.11] on 4,500 images`."""
        value, low, high = self.points()
        return f"lost {value:.2f} points [{low:.2f}, {high:.2f}] on {self.images:,} images"

    def __add__(self, other: PairedLoss) -> PairedLoss:
        return PairedLoss(images=self.images + other.images, lost=self.lost + other.lost, gained=self.gained + other.gained)


class _Judged(Record):
    losses: dict[str, PairedLoss]
    """Bundle and runtime -> its loss so far."""


def verdict(loss: PairedLoss, max_drop: float, confidence: float, *, final: bool) -> bool | None:
    """Return whether the loss is within `max_drop` points; `None` if more images are needed to decide.

    Args:
        loss: on the images run so far.
        max_drop: in points.
        confidence: one-sided, required on the last image for a loss within `max_drop`.
        final: whether there are no more images.
    """
    if not loss.images:
        return False if final else None
    sure = max(_SURE, confidence)
    value, low, high = loss.points(2 * sure - 1)
    if high <= max_drop or low > max_drop:
        return high <= max_drop
    if not final:
        return None
    identical = not loss.lost and not loss.gained
    return identical or value + (high - value) * float(ndtri(confidence) / ndtri(sure)) <= max_drop


def judging_splits(data: Dataset, count: int, taught: int | None) -> tuple[Split, ...]:
    """Return up to `count` images used for neither calibration nor distillation: validation, then unused training images.

    Args:
        data: its calibration images are the last of its training images, see `vitnla.data.splits`.
        count: largest number of images.
        taught: number of training images used for distillation, from the first on; `None` is all.
    """
    validation = data.split("validation").head(count)
    if "train" not in data.splits or taught is None:
        return (validation,)
    training = data.split("train")
    end = len(training) - len(data.split("calibration"))
    # From the last one on, so that fewer are the first of more.
    places = np.arange(end - 1, max(taught, end - (count - len(validation))) - 1, -1)
    return (validation, training.take(places)) if len(places) else (validation,)


class Judge:
    """Measures the loss of bundles against the dense fp32 model, each on its own runtime; counts are stored.

    Args:
        request: its folder stores the counts, so that a resumed tuning, or one with another budget, reuses them.
        dense: the dense model in fp32.
        splits: see `judging_splits`.
        say: called with a line of text before each step.
    """

    def __init__(self, request: TuneRequest, dense: Bundle, splits: tuple[Split, ...], say: OnStep) -> None:
        self._request, self._dense, self._splits, self._say = request, dense, splits, say
        self._path = request.folder / FILE
        self._losses = dict(_Judged.read(self._path).losses) if self._path.is_file() else {}
        self._dense_right = np.empty(0, np.bool_)
        self._total = sum(map(len, splits))

    def loss(self, bundle: Bundle, target: Target) -> PairedLoss:
        """Return the loss of a bundle on a runtime as measured so far."""
        return self._losses.get(self._key(bundle, target), PairedLoss())

    def fits(self, bundle: Bundle, target: Target, label: str | None = None) -> bool:
        """Return whether a bundle on a runtime is within the budget; the dense fp32 model on the reference runtime always is."""
        if bundle == self._dense and target == self._request.reference:
            return True
        found = self.loss(bundle, target)
        title = f"{label or bundle.name} on {target.label}"
        self._say(f"{title}: what it loses")
        with contextlib.ExitStack() as stack:
            classifier = None
            while (known := self._verdict(found)) is None:
                classifier = classifier or stack.enter_context(Classifier(bundle, target, self._request))
                last = min(found.images + CHUNK, self._total)
                found += self._compare(classifier, found.images, last)
                self._losses[self._key(bundle, target)] = found
                write_atomically(self._path, _Judged(losses=self._losses).to_json())
        if found.images:
            self._say(f"{title}: {found.describe()}")
        return known

    def _verdict(self, loss: PairedLoss) -> bool | None:
        return verdict(loss, self._request.max_drop, self._request.confidence, final=loss.images >= self._total)

    def _compare(self, classifier: Classifier, first: int, last: int) -> PairedLoss:
        while len(self._dense_right) < last:
            more = min(len(self._dense_right) + CHUNK, self._total)
            self._dense_right = np.append(self._dense_right, self._right(self._reference, len(self._dense_right), more))
        ours, dense = self._right(classifier, first, last), self._dense_right[first:last]
        return PairedLoss(images=len(ours), lost=int((dense & ~ours).sum()), gained=int((ours & ~dense).sum()))

    @cached_property
    def _reference(self) -> Classifier:
        return Classifier(self._dense, self._request.reference, self._request)

    def _right(self, classifier: Classifier, first: int, last: int) -> NDArray[np.bool_]:
        parts, start = [], 0
        for split in self._splits:
            part = split.take(slice(max(first - start, 0), max(last - start, 0)))
            parts += [classifier.right(part)] if len(part) else []
            start += len(split)
        return np.concatenate(parts)

    def _key(self, bundle: Bundle, target: Target) -> str:
        graphs = " against ".join(one.manifest.files[MODEL][:12] for one in (bundle, self._dense))
        return f"{bundle.name} on {target.label}: {graphs} on {self._request.reference.label}"


class Classifier:
    """A bundle on a runtime, at the batch size that is tuned for, so that accuracy and time are of the same session."""

    def __init__(self, bundle: Bundle, target: Target, request: TuneRequest) -> None:
        self._prepare = bundle_preparation(bundle)
        self._batch = request.batch
        self._session = target.open(bundle, request.threads, request.batch)

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *failure: object) -> None:
        self._session.close()

    def right(self, split: Split) -> NDArray[np.bool_]:
        """Return whether each image is classified correctly, bool [N]."""
        answers = run_in_batches(self._session, self._prepare(split.images), self._batch)
        return np.asarray(split.classes.scored(answers).argmax(axis=1) == split.labels)

    def top1(self, split: Split) -> Interval:
        """Return top-1 on a split as a fraction, with its Wilson interval; at most `CHUNK` images are in memory."""
        chunks = (split.take(slice(start, start + CHUNK)) for start in range(0, len(split), CHUNK))
        return wilson(sum(int(self.right(chunk).sum()) for chunk in chunks), len(split))
