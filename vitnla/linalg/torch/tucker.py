"""One mode of a Tucker decomposition of many matrices of one shape.

Sources: Tucker 1966 ("Some mathematical notes on three-mode factor analysis"); De Lathauwer, De Moor & Vandewalle 2000 ("A
multilinear singular value decomposition"), by TensorLy's `partial_tucker`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def head_factor(tensor: Tensor, width: int) -> Tensor:
    """F [d_h, width] float64, orthonormal, best first: the factor of the second mode of [n, d_h, d], cut to `width`.

    |T - T x_2 F F^T| is the least of all F of that width. A tensor of zeros has the first unit vectors for F.

    Args:
        tensor: [n, d_h, d], finite.
        width: 1 to d_h.
    """
    size = float(tensor.norm())
    if size == 0:
        return torch.eye(tensor.shape[1], width, dtype=torch.float64)
    from tensorly.decomposition import partial_tucker

    (_, (factor,)), _ = partial_tucker((tensor.double() / size).numpy(), rank=[width], modes=[1], random_state=0)
    return torch.from_numpy(np.ascontiguousarray(factor))
