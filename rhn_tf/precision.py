"""The precision of matrix products: how far their factors are rounded.

The object `Precision` holds it. `backend.build` makes this object from the name of a precision and the device; a Keras
layer makes it from its option `matmul_dtype`. `RHNCell` and `RHNLanguageModel` hold it, pass it to the recurrence with
their weights, and compute all products through it. Keras' own policies, such as "mixed_bfloat16", work as well: under
such a policy, a layer computes everything in the lower precision, not only its products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Precision:
    """Of the matrix products of one model or layer.

    Attributes:
        matmul_dtype: of the factors, such as "bfloat16"; None leaves them as they are. Results are of the factors' own
            dtype in either case.
        tf32: whether a GPU may round float32 factors to TF32; None leaves it to TensorFlow's switch.
    """

    matmul_dtype: str | None = None
    tf32: bool | None = None

    @classmethod
    def on_device(cls, name: str, device: str) -> Precision:
        """What `name`, one of `rhn.backend.PRECISIONS`, is on a device of TensorFlow's name.

        On a CPU without bfloat16 units XLA takes 1.05 times as long for bf16 as for float32 (H 200, L 5, B 20, T 35),
        so that bf16 is for a GPU only.
        """
        return cls("bfloat16" if name == "bf16" and "GPU" in device else None, tf32=name != "float32")

    def factor(self, x: tf.Tensor) -> tf.Tensor:
        """`x` as a product takes it."""
        return x if self.matmul_dtype is None else tf.cast(x, self.matmul_dtype)

    def matmul(self, a: tf.Tensor, b: tf.Tensor, **transposed: bool) -> tf.Tensor:
        """`tf.matmul`."""
        return self._multiply(tf.matmul, a, b, **transposed)

    def linear(self, x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """(..., features) and (features, n) to (..., n): one large product, where matmul makes one per time step."""
        if x.shape.rank == 2:  # tensordot reshapes, which XLA cannot differentiate in a loop for an unknown batch size
            return self.matmul(x, weight)
        return self._multiply(tf.tensordot, x, weight, axes=1)

    @contextmanager
    def products(self) -> Iterator[None]:
        """Within it TensorFlow's switch for TF32 is as `tf32` says; afterwards it is as it was.

        The switch belongs to the process. XLA reads it when it compiles a function, TensorFlow when it starts a
        product. So a model whose calls are all within its own `products()` has its own precision, whatever others set.
        """
        experimental = tf.config.experimental
        before = experimental.tensor_float_32_execution_enabled()
        experimental.enable_tensor_float_32_execution(before if self.tf32 is None else self.tf32)
        try:
            yield
        finally:
            experimental.enable_tensor_float_32_execution(before)

    def _multiply(self, multiply: Callable[..., tf.Tensor], a: tf.Tensor, b: tf.Tensor, **options: Any) -> tf.Tensor:
        # The sums are float32 within the product and rounded at its end: only XLA has products of another output_type.
        product = multiply(self.factor(a), self.factor(b), **options)
        return product if self.matmul_dtype is None else tf.cast(product, a.dtype)


UNROUNDED = Precision()
