"""Does a bundle keep the dense model's top-1 within the budget? As many validation images as it takes to tell, and no more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from export.preparation import bundle_preparation
from export.tune.request import TuneRequest
from runtime.api import open_session
from runtime.batching import run_in_batches
from runtime.bundle import Bundle
from runtime.plan import Target
from runtime.stats import Interval
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset, Split

FILE, CHUNK = "judged.json", 500
_SURE = 0.995
"""A verdict before the last image must be this sure: it is looked for after every chunk, so now and then chance would give one."""


class Loss(Record):
    """What a bundle on a runtime lost of the first so many validation images."""

    images: int = 0
    lost: int = 0
    """Images that the dense model has right and this one wrong."""
    gained: int = 0
    """The reverse."""

    def points(self, confidence: float = 0.95) -> Interval:
        """Top-1 lost, in points, and its interval, paired: what both models have right or wrong says nothing."""
        one = self.lost - self.gained
        # One more discordant image than was seen: agreement on every image of a few does not mean that none would differ.
        deviation = math.sqrt(self.lost + self.gained + 1 - one**2 / self.images)
        half = float(ndtri((1 + confidence) / 2)) * deviation
        return Interval(*(100 * value / self.images for value in (one, one - half, one + half)))

    def describe(self) -> str:
        """`lost 0.62 points [0.13, 1.11] of 4,500 validation images`."""
        value, low, high = self.points()
        return f"lost {value:.2f} points [{low:.2f}, {high:.2f}] of {self.images:,} validation images"

    def __add__(self, other: Loss) -> Loss:
        return Loss(images=self.images + other.images, lost=self.lost + other.lost, gained=self.gained + other.gained)


class _Judged(Record):
    losses: dict[str, Loss]
    """Bundle and runtime -> what it lost so far."""


def verdict(loss: Loss, max_drop: float, confidence: float, *, final: bool) -> bool | None:
    """Whether the loss is within `max_drop` points; None where more images are needed to tell.

    Args:
        loss: of what was seen so far.
        max_drop: points.
        confidence: how sure it must be that the loss is within, one-sided, once there are no more images.
        final: whether there are no more.
    """
    if not loss.images:
        return False if final else None
    value, low, high = loss.points(2 * _SURE - 1)
    if high <= max_drop or low > max_drop:
        return high <= max_drop
    if not final:
        return None
    return value + (high - value) * float(ndtri(confidence) / ndtri(_SURE)) <= max_drop


def judging_splits(data: Dataset, count: int, taught: int | None) -> tuple[Split, ...]:
    """Up to `count` images that neither calibrate nor teach: the validation split, and what is left of the training split.

    Args:
        data: its calibration images are the last of its training images, see `vitnla.data.carve`.
        count: of images.
        taught: how many of the first training images teach; `None` is all of them.
    """
    validation = data.split("validation").head(count)
    if "train" not in data.splits or taught is None:
        return (validation,)
    training = data.split("train")
    end = len(training) - len(data.split("calibration"))
    # From the last one on, so that fewer are the first of more.
    places = np.arange(end - 1, max(taught, end - (count - len(validation))) - 1, -1)
    return (validation, training.take(places)) if len(places) else (validation,)


@dataclass(frozen=True)
class _Chunk:
    images: Split
    ends_at: int


class Judge:
    """Counts what bundles lose against the dense fp32 model, both on the runtime that they are meant for; what was counted is kept.

    Args:
        request: its folder keeps the counts, so that a tuning that goes on, or asks for another loss, goes on counting.
        dense: the dense model in fp32.
        splits: see `judging_splits`.
    """

    def __init__(self, request: TuneRequest, dense: Bundle, splits: tuple[Split, ...]) -> None:
        self._request, self._dense_bundle, self._splits = request, dense, splits
        self._path = request.folder / FILE
        self._losses = dict(_Judged.read(self._path).losses) if self._path.is_file() else {}
        self._dense: dict[int, NDArray[np.bool_]] = {}
        self.total = sum(map(len, splits))

    def loss(self, bundle: Bundle, target: Target) -> Loss:
        """What is known of a bundle so far."""
        return self._losses.get(_key(bundle, target), Loss())

    def fits(self, bundle: Bundle, target: Target) -> bool:
        """Whether a bundle on a runtime is within the budget. The dense fp32 model is, by definition, on the first runtime."""
        if bundle.name == self._dense_bundle.name and target == self._request.targets[0]:
            return True
        found, session = self.loss(bundle, target), None
        for chunk in self._chunks():
            if (known := self._verdict(found)) is not None:
                return known
            if chunk.ends_at <= found.images:
                continue
            session = session or _Classifier(bundle, target, self._request)
            found += self._compare(session, chunk)
            self._losses[_key(bundle, target)] = found
            write_atomically(self._path, _Judged(losses=self._losses).to_json())
        return bool(self._verdict(found))

    def _verdict(self, loss: Loss) -> bool | None:
        return verdict(loss, self._request.max_drop, self._request.confidence, final=loss.images >= self.total)

    def _compare(self, session: _Classifier, chunk: _Chunk) -> Loss:
        ours = session.right(chunk.images)
        if chunk.ends_at not in self._dense:
            self._dense[chunk.ends_at] = self._reference.right(chunk.images)
        dense = self._dense[chunk.ends_at]
        return Loss(images=len(ours), lost=int((dense & ~ours).sum()), gained=int((ours & ~dense).sum()))

    @cached_property
    def _reference(self) -> _Classifier:
        return _Classifier(self._dense_bundle, self._request.targets[0], self._request)

    def _chunks(self) -> Iterator[_Chunk]:
        done = 0
        for split in self._splits:
            for start in range(0, len(split), CHUNK):
                part = split.take(slice(start, min(start + CHUNK, len(split))))
                done += len(part)
                yield _Chunk(part, done)


class _Classifier:
    """A bundle on a runtime, at the batch size that is tuned for: what is judged is what is timed."""

    def __init__(self, bundle: Bundle, target: Target, request: TuneRequest) -> None:
        self._prepare = bundle_preparation(bundle)
        self._batch = request.batch
        self._session = open_session(bundle, target.label, provider=target.provider, threads=request.threads, batch=request.batch)

    def right(self, images: Split) -> NDArray[np.bool_]:
        """Which images [N] get their label."""
        answers = run_in_batches(self._session, self._prepare(images.images), self._batch)
        return np.asarray(answers.argmax(axis=1) == images.labels)


def _key(bundle: Bundle, target: Target) -> str:
    return f"{bundle.name} on {target.label}"
