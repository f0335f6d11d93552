"""The precision of matrix products: how far their factors are rounded."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple

import jax

# JAX's names for the precisions of `rhn.backend`. They are permissions: on a CPU, JAX always computes in float32.
_JAX_NAME = {"float32": "float32", "tf32": "tensorfloat32", "bf16": "BF16_BF16_F32"}


class Precision(NamedTuple):
    """How far the factors of one model's matrix products may be rounded.

    `JaxBackend.build` makes one for each model. It is passed on by JAX's own context, not by an argument: the model
    calls its compiled functions within `products()`, as a user calls a layer within `jax.default_matmul_precision`. JAX
    reads the context while it traces a function, forward and backward, and keeps one program per precision; so models
    of different precision do not disturb each other.

    Attributes:
        name: one of `rhn.backend.PRECISIONS`.
    """

    name: str

    def products(self) -> AbstractContextManager[None]:
        """Within it, the factors of products may be rounded to this precision, and no further."""
        return jax.default_matmul_precision(_JAX_NAME[self.name])
