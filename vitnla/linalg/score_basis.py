"""The directions of a head's queries and keys that its attention scores need.

Everything is per head and float64. A head's scores are s = qT k with q = W_q x + b_q and k = W_k x + b_k, [d] each. Softmax
over the keys ignores whatever is added to all scores of one query, so b_k cancels exactly, and so does the mean of the keys:
only the covariance of k counts.

Sources: truncating the product of two Grams by their square roots is balanced truncation (Moore 1981; Laub et al. 1987),
which whitens both sides and needs no inverse of either. That W_q and W_k act only through W_qT W_k is from Elhage et al. 2021
("A Mathematical Framework for Transformer Circuits").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from vitnla.linalg.arrays import EPSILON, A, inverse_sqrt, namespace
from vitnla.linalg.symmetric import psd_root


@dataclass(frozen=True)
class ScoreBasis(Generic[A]):
    """Two sets of d directions of one head, best first: (query_mapT q) . (key_mapT k) over the first r of them gives the scores.

    Args:
        query_map: [d, d] float64, F; `key_map`: [d, d] float64, G. F_r G_rT is the oblique projection of rank r for which
            E(qT k - qT F_r G_rT k)^2 is least, q and k drawn independently.
        energies: [d] float64, descending: keeping the first r loses exactly `energies[r:].sum()` of E(qT k)^2.
    """

    query_map: A
    key_map: A
    energies: A


def score_basis(query_moment: A, key_moment: A) -> ScoreBasis[A]:
    """Return the directions of q and k that the scores use, from A = E[q qT] and B = cov(k), both [d, d].

    With A = R RT and B = T TT, SVD(RT T) = U S VT; then F = T V S^-1/2 and G = R U S^-1/2, and energies are S^2. Directions
    in which S is rounding noise carry no score and become zeros, so that singular A and B do no harm. The two maps share
    the scale: E[(FT q)(FT q)T] = GT B G = diag(S).

    Raises:
        InputError: a number is not finite.
    """
    r: Any = psd_root(query_moment)
    t: Any = psd_root(key_moment)
    left, values, right = namespace(r).linalg.svd(r.T @ t)
    gain = inverse_sqrt(values, values > len(values) * EPSILON * values[0])
    return ScoreBasis((t @ right.T) * gain, (r @ left) * gain, values**2)
