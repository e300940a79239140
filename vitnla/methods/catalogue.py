"""Every method that ships with the package. Importing a method's `apply` module registers it."""

from vitnla.methods.auto import apply as auto
from vitnla.methods.cholesky import apply as cholesky
from vitnla.methods.none import apply as none
from vitnla.methods.online import apply as online
from vitnla.methods.pca import apply as pca
from vitnla.methods.pca_slice import apply as pca_slice
from vitnla.methods.registry import METHODS
from vitnla.methods.svd import apply as svd
from vitnla.methods.symmetric import apply as symmetric
from vitnla.methods.tensor import apply as tensor

__all__ = ["METHODS", "auto", "cholesky", "none", "online", "pca", "pca_slice", "svd", "symmetric", "tensor"]
