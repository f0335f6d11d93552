"""Sample text from a checkpoint in JAX: `python examples/generate_jax.py runs/NAME/best.safetensors "The "`.

The checkpoint may come from any of the three ports. `python -m rhn_jax.train with demo` makes one.
"""

import sys

import jax
import jax.numpy as jnp
from flax import nnx

import rhn
from rhn_datasets import Vocabulary
from rhn_jax import RHNLanguageModel


def generate(path: str, prompt: str, length: int = 200, temperature: float = 0.8) -> str:
    """The prompt, which needs at least one symbol, and `length` symbols more."""
    rngs = nnx.Rngs(1)
    _, metadata = rhn.load_checkpoint(path)
    vocabulary = Vocabulary.from_json(metadata["vocabulary"])
    model = RHNLanguageModel.from_checkpoint(path)
    step = nnx.jit(lambda model, tokens, state: model(tokens, state))
    tokens = vocabulary.encode(prompt).tolist()
    logits, state = step(model, jnp.array([tokens]), None)  # (1, n, V), per layer (1, H)
    for _ in range(length):
        token = jax.random.categorical(rngs(), logits[:, -1] / temperature)  # (1,)
        tokens.append(int(token[0]))
        logits, state = step(model, token[:, None], state)  # (1, 1, V): the state remembers the rest
    return vocabulary.decode(tokens)


if __name__ == "__main__":
    print(generate(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "\n"))
