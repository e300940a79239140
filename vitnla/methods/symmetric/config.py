"""Settings of `symmetric`."""

from __future__ import annotations

from typing import Literal

from vitnla.common.schema import Record


class SymmetricConfig(Record):
    """Signs of the eigenvalues kept, and the error measure."""

    signs: Literal["signed", "psd"] = "signed"
    """`signed` keeps the largest by magnitude; `psd` the largest positive ones, and starts from s = 1."""
    weighting: Literal["none", "centered"] = "centered"
    """`centered`: errors of scores on the calibration tokens about their mean. `none`: of the weights alone."""
