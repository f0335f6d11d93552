"""Sample text from a checkpoint in PyTorch: `python examples/generate_torch.py runs/NAME/best.safetensors "The "`.

The checkpoint may come from any of the three ports. `python -m rhn_torch.train with demo` makes one.
"""

import sys

import torch

import rhn
from rhn_datasets import Vocabulary
from rhn_torch import RHNLanguageModel


@torch.no_grad()
def generate(path: str, prompt: str, length: int = 200, temperature: float = 0.8) -> str:
    """The prompt, which needs at least one symbol, and `length` symbols more."""
    torch.manual_seed(1)
    _, metadata = rhn.load_checkpoint(path)
    vocabulary = Vocabulary.from_json(metadata["vocabulary"])
    model = RHNLanguageModel.from_checkpoint(path).eval()
    tokens = vocabulary.encode(prompt).tolist()
    logits, state = model(torch.tensor([tokens]))  # (1, n, V), per layer (1, H)
    for _ in range(length):
        token = torch.multinomial(torch.softmax(logits[:, -1] / temperature, dim=-1), 1)  # (1, 1)
        tokens.append(token.item())
        logits, state = model(token, state)  # (1, 1, V): the state remembers the rest
    return vocabulary.decode(tokens)


if __name__ == "__main__":
    print(generate(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "\n"))
