"""A Recurrent Highway Network written down directly from the paper, to compare with the fast layer.

`python examples/naive_rhn.py` gives the same weights and masks to this model and to `rhn_torch.RHNLanguageModel`, and
shows how far the two are apart and how long a training step of each takes.
"""

import time
from collections.abc import Callable, Mapping

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

import rhn
import rhn_torch

CONFIG = rhn.RHNConfig(vocab_size=50, hidden_size=64, recurrence_depth=5)
BATCH_SIZE, LENGTH = 20, 35


class NaiveRHN(nn.Module):
    """The equations of the paper, written down directly: one layer, with one `nn.Linear` per gate and micro-step."""

    def __init__(self, config: rhn.RHNConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_width)
        self.input_h = nn.Linear(config.embedding_width, hidden, bias=False)
        self.input_t = nn.Linear(config.embedding_width, hidden, bias=False)
        self.recurrent_h = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(config.recurrence_depth))
        self.recurrent_t = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(config.recurrence_depth))
        self.softmax = nn.Linear(hidden, config.vocab_size)
        if config.tie_weights:
            self.softmax.weight = self.embedding.weight
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.04, 0.04)
        for linear in self.recurrent_t:
            nn.init.constant_(linear.bias, -2.0)

    def forward(self, tokens: Tensor, s: Tensor, masks: rhn.VariationalMasks) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) and state (B, H) to logits (B, T, V) and state."""
        x = self.embedding(tokens) * masks.embedding.unsqueeze(-1)  # (B, T, E)
        outputs = []
        for x_now in x.unbind(dim=1):  # (B, E)
            s = self.time_step(x_now, s, masks.input[0][0], masks.state[0][0])  # (B, H)
            outputs.append(s)
        top = torch.stack(outputs, dim=1) * masks.output.unsqueeze(1)  # (B, T, H)
        return self.softmax(top), s

    def time_step(self, x_now: Tensor, s: Tensor, input_mask: Tensor, state_mask: Tensor) -> Tensor:
        """Input (B, E), state (B, H) and their masks to state (B, H)."""
        x_now = x_now * input_mask  # (B, E)
        for micro_step, (recurrent_h, recurrent_t) in enumerate(zip(self.recurrent_h, self.recurrent_t, strict=True)):
            u = s * state_mask  # (B, H)
            z_h, z_t = recurrent_h(u), recurrent_t(u)  # (B, H)
            if micro_step == 0:
                z_h, z_t = z_h + self.input_h(x_now), z_t + self.input_t(x_now)
            h, t = torch.tanh(z_h), torch.sigmoid(z_t)  # (B, H)
            s = h * t + s * (1 - t)  # (B, H)
        return s


def state_dict(parameters: Mapping[str, NDArray]) -> dict[str, Tensor]:
    """The specification's parameters, with tied weights, by the names of `NaiveRHN`."""
    p = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in parameters.items()}
    named = {"embedding.weight": p["embedding"], "softmax.weight": p["embedding"], "softmax.bias": p["softmax.bias"]}
    for gate, letter in enumerate("ht"):
        named[f"input_{letter}.weight"] = p["layers.0.input_weight"][gate].T  # (H, E)
        for micro_step, weight in enumerate(p["layers.0.recurrent_weight"]):  # (G, H, H)
            named[f"recurrent_{letter}.{micro_step}.weight"] = weight[gate].T
            named[f"recurrent_{letter}.{micro_step}.bias"] = p["layers.0.bias"][micro_step, gate]
    return named


def milliseconds(step: Callable[[], None], times: int = 5) -> float:
    """The fastest of some calls."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        took.append(time.perf_counter() - start)
    return 1000 * min(took)


def main() -> dict[str, float]:
    """Compare the two models; the largest difference of the logits and of a gradient."""
    parameters = rhn.initial_parameters(CONFIG, seed=1)
    naive, ours = NaiveRHN(CONFIG), rhn_torch.RHNLanguageModel(CONFIG)
    naive.load_state_dict(state_dict(parameters))
    ours.load_parameters(parameters)
    tokens, targets = torch.randint(CONFIG.vocab_size, (2, BATCH_SIZE, LENGTH))  # (B, T)
    drawn = rhn.sample_masks(CONFIG, tokens.numpy(), (0.1, 0.2, 0.2, 0.2), seed=1, step=0)
    masks = drawn.map(lambda mask: torch.as_tensor(mask, dtype=torch.float32))
    zero = torch.zeros(BATCH_SIZE, CONFIG.hidden_size)

    def naive_step() -> None:
        naive.zero_grad()
        F.cross_entropy(naive(tokens, zero, masks)[0].flatten(0, 1), targets.flatten()).backward()

    def our_step() -> None:
        ours.zero_grad()
        F.cross_entropy(ours(tokens, masks=masks)[0].flatten(0, 1), targets.flatten()).backward()

    times = {"naive": milliseconds(naive_step), "rhn_torch": milliseconds(our_step)}
    differences = {
        "logits": (naive(tokens, zero, masks)[0] - ours(tokens, masks=masks)[0]).abs().max().item(),
        "gradient of the embedding": (naive.embedding.weight.grad - ours.embedding.grad).abs().max().item(),
    }
    for name, difference in differences.items():
        print(f"{name}: largest difference {difference:.1e}")
    for name, time_of in times.items():
        print(f"{name}: {time_of:.1f} ms for forward and backward")
    return differences


if __name__ == "__main__":
    main()
