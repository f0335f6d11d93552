"""Classify sequences of different lengths with a bidirectional RHN in Flax NNX: `python examples/classify_jax.py`.

Shows lengths (the padding has no influence), both directions, and variational dropout.
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from sequences import NUM_SYMBOLS, make_batch

from rhn_jax import RHN


class Classifier(nnx.Module):
    """Embedding, one bidirectional RHN layer, and a softmax over its two last states."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embedding = nnx.Embed(NUM_SYMBOLS, 16, rngs=rngs)
        self.rhn = RHN(16, 32, recurrence_depth=2, bidirectional=True, drop_input=0.1, drop_state=0.1, rngs=rngs)
        self.softmax = nnx.Linear(2 * 32, 2, rngs=rngs)

    def __call__(self, tokens: Array, lengths: Array) -> Array:
        """Tokens (B, T) and lengths (B,) to logits (B, 2)."""
        x = self.embedding(tokens)  # (B, T, 16)
        carry, _ = self.rhn(x, seq_lengths=lengths, return_carry=True)  # per direction (B, 32)
        return self.softmax(jnp.concatenate(carry, axis=-1))  # (B, 2)


@nnx.jit
def train_step(model: Classifier, optimizer: nnx.Optimizer, tokens: Array, lengths: Array, labels: Array) -> Array:
    """One step of Adam; the loss."""

    def loss_of(model: Classifier) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(tokens, lengths), labels).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def main(steps: int = 200) -> float:
    """Train on `steps` batches and return the accuracy on new sequences."""
    generator = np.random.default_rng(1)
    model = Classifier(nnx.Rngs(1))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    for step in range(1, steps + 1):
        loss = train_step(model, optimizer, *map(jnp.asarray, make_batch(generator, 64)))
        if step % 50 == 0:
            print(f"step {step}: loss {loss:.3f}")

    model.eval()  # no dropout
    tokens, lengths, labels = map(jnp.asarray, make_batch(generator, 1000))
    logits = model(tokens, lengths)  # (1000, 2)
    padded = jnp.where(tokens == 0, 7, tokens)  # something else in the padding
    assert jnp.array_equal(model(padded, lengths), logits)
    accuracy = float((logits.argmax(-1) == labels).mean())
    print(f"accuracy on new sequences: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
