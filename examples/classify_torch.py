"""Classify sequences of different lengths with a bidirectional RHN in PyTorch: `python examples/classify_torch.py`.

Shows lengths (the padding has no influence), both directions, and variational dropout.
"""

import numpy as np
import torch
from sequences import NUM_SYMBOLS, make_batch
from torch import Tensor, nn
from torch.nn import functional as F

from rhn_torch import RHN


class Classifier(nn.Module):
    """Embedding, one bidirectional RHN layer, and a softmax over its two last states."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(NUM_SYMBOLS, 16)
        self.rhn = RHN(16, 32, recurrence_depth=2, batch_first=True, bidirectional=True, drop_input=0.1, drop_state=0.1)
        self.softmax = nn.Linear(2 * 32, 2)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Tokens (B, T) and lengths (B,) to logits (B, 2)."""
        x = self.embedding(tokens)  # (B, T, 16)
        _, h_n = self.rhn(x, lengths=lengths)  # (2, B, 32): the direction first, as in nn.GRU
        return self.softmax(torch.cat([h_n[0], h_n[1]], dim=-1))  # (B, 2)


def main(steps: int = 200) -> float:
    """Train on `steps` batches and return the accuracy on new sequences."""
    torch.manual_seed(1)
    generator = np.random.default_rng(1)
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(1, steps + 1):
        tokens, lengths, labels = map(torch.as_tensor, make_batch(generator, 64))
        loss = F.cross_entropy(model(tokens, lengths), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")

    model.eval()  # no dropout
    tokens, lengths, labels = map(torch.as_tensor, make_batch(generator, 1000))
    with torch.no_grad():
        logits = model(tokens, lengths)  # (1000, 2)
        padded = torch.where(tokens == 0, 7, tokens)  # something else in the padding
        assert torch.equal(model(padded, lengths), logits)
    accuracy = (logits.argmax(-1) == labels).float().mean().item()
    print(f"accuracy on new sequences: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main()
