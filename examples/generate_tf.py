"""Sample text from a checkpoint in TensorFlow: `python examples/generate_tf.py runs/NAME/best.safetensors "The "`.

The checkpoint may come from any of the three ports. `python -m rhn_tf.train with demo` makes one.
"""

import sys

import tensorflow as tf

import rhn
from rhn_datasets import Vocabulary
from rhn_tf import RHNLanguageModel


def generate(path: str, prompt: str, length: int = 200, temperature: float = 0.8) -> str:
    """The prompt, which needs at least one symbol, and `length` symbols more."""
    tf.random.set_seed(1)
    _, metadata = rhn.load_checkpoint(path)
    vocabulary = Vocabulary.from_json(metadata["vocabulary"])
    model = RHNLanguageModel.from_checkpoint(path)
    step = tf.function(model)
    tokens = vocabulary.encode(prompt).tolist()
    logits, *state = step(tf.constant([tokens]))  # (1, n, V), per layer (1, H)
    for _ in range(length):
        token = tf.random.categorical(logits[:, -1] / temperature, 1)  # (1, 1)
        tokens.append(int(token[0, 0]))
        logits, *state = step(token, state)  # (1, 1, V): the state remembers the rest
    return vocabulary.decode(tokens)


if __name__ == "__main__":
    print(generate(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "\n"))
