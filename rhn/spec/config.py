"""The configuration of a Recurrent Highway Network: one frozen, validated description for every part of the project."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rhn.spec.arguments import check_choice, check_flag, check_size

ACTIVATIONS = ("tanh", "sigmoid", "relu")


@dataclass(frozen=True)
class RHNConfig:
    """Architecture of an RHN language model (Zilly et al., arXiv 1607.03474, equations 6 to 9).

    Args:
        vocab_size: number of word types V, at least 1.
        hidden_size: units H of every layer, at least 1.
        recurrence_depth: micro-steps L per time step, at least 1.
        num_layers: RHN layers stacked on each other, at least 1.
        embedding_size: width E of the embedding; None means `hidden_size`.
        tie_weights: the softmax uses the transposed embedding, after a projection from H to E if the two differ.
        couple_gates: the carry gate is c = 1 - t; otherwise it has weights of its own.
        share_gate_masks: one dropout mask for all gates; otherwise one per gate.
        activation: nonlinearity of the candidate h, one of `ACTIVATIONS`.

    Raises:
        ValueError: the value of an option is not accepted; the message says what is.
    """

    vocab_size: int
    hidden_size: int
    recurrence_depth: int
    num_layers: int = 1
    embedding_size: int | None = None
    tie_weights: bool = True
    couple_gates: bool = True
    share_gate_masks: bool = True
    activation: str = "tanh"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "recurrence_depth", "num_layers", "embedding_size"):
            value = getattr(self, name)
            if name == "embedding_size" and value is None:
                continue
            object.__setattr__(self, name, check_size(name, value))
        for name in ("tie_weights", "couple_gates", "share_gate_masks"):
            check_flag(name, getattr(self, name))
        check_choice("activation", self.activation, ACTIVATIONS)

    @property
    def embedding_width(self) -> int:
        """E: `embedding_size`, or `hidden_size` if `embedding_size` is None."""
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def has_projection(self) -> bool:
        """Whether the top state is projected from H to E before the softmax: weights are tied, and E differs from H."""
        return self.tie_weights and self.embedding_width != self.hidden_size

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of the gates in the order of every gate axis: h, t and, if the gates are not coupled, c."""
        return ("h", "t") if self.couple_gates else ("h", "t", "c")

    @property
    def num_gates(self) -> int:
        """G: the length of every gate axis."""
        return len(self.gates)

    @property
    def num_gate_masks(self) -> int:
        """M: the length of the leading axis of input and state masks."""
        return 1 if self.share_gate_masks else self.num_gates

    def input_size(self, layer: int) -> int:
        """Width E_i of the input of layer `layer`: E for the first layer, H for the others."""
        return self.embedding_width if layer == 0 else self.hidden_size

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values for JSON; `RHNConfig(**d)` is the inverse."""
        return dataclasses.asdict(self)
