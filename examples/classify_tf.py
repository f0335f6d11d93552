"""Classify sequences of different lengths with a bidirectional RHN in Keras: `python examples/classify_tf.py`.

Shows padding masks (the padding has no influence), both directions, and variational dropout.
"""

import keras
import numpy as np
from sequences import MAX_LENGTH, NUM_SYMBOLS, make_batch

from rhn_tf import RHN


def make_classifier() -> keras.Model:
    """Embedding, one bidirectional RHN layer, and a softmax over its two last states."""
    rhn = RHN(32, recurrence_depth=2, drop_input=0.1, drop_state=0.1)
    return keras.Sequential(
        [
            keras.Input((MAX_LENGTH,), dtype="int32"),
            keras.layers.Embedding(NUM_SYMBOLS, 16, mask_zero=True),  # (B, T, 16), and a mask (B, T) of the symbols
            keras.layers.Bidirectional(rhn),  # (B, 2*32)
            keras.layers.Dense(2),  # (B, 2)
        ]
    )


def main(steps: int = 200) -> float:
    """Train on `steps` batches and return the accuracy on new sequences."""
    keras.utils.set_random_seed(1)
    generator = np.random.default_rng(1)
    model = make_classifier()
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tokens, _, labels = make_batch(generator, 64 * steps)
    model.fit(tokens, labels, batch_size=64, verbose=2)

    tokens, _, labels = make_batch(generator, 1000)
    _, accuracy = model.evaluate(tokens, labels, batch_size=1000, verbose=0)
    more_padding = np.pad(tokens, ((0, 0), (0, 10)))  # (1000, T + 10)
    logits, with_padding = model(tokens), model(more_padding)  # (1000, 2)
    np.testing.assert_allclose(with_padding, logits, rtol=0, atol=1e-5)
    print(f"accuracy on new sequences: {accuracy:.3f}")
    return float(accuracy)


if __name__ == "__main__":
    main()
