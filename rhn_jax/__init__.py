"""Recurrent Highway Networks for JAX and Flax NNX.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from rhn_jax import RHN
>>> rhn = RHN(input_size=16, hidden_size=32, recurrence_depth=3, rngs=nnx.Rngs(0))
>>> carry, outputs = rhn(jnp.zeros((4, 5, 16)), return_carry=True)
>>> outputs.shape, [s.shape for s in carry]
((4, 5, 32), [(4, 32)])
"""

from rhn_jax.cell import RHNCell
from rhn_jax.fast_recurrence import fast_recurrence
from rhn_jax.layer import RHN
from rhn_jax.model import RHNLanguageModel
from rhn_jax.recurrence import plain_recurrence

__all__ = ["RHN", "RHNCell", "RHNLanguageModel", "fast_recurrence", "plain_recurrence"]
