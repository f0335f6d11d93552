"""Variational dropout masks (Gal and Ghahramani 2016), drawn in NumPy so that every backend sees the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.config import RHNConfig
from rhn.spec.random import Purpose, uniform
from rhn.spec.windows import check_tokens


class DropRates(NamedTuple):
    """Probability in [0, 1) of dropping a unit, per kind of mask."""

    drop_embedding: float = 0.0
    drop_input: float = 0.0
    drop_state: float = 0.0
    drop_output: float = 0.0


class VariationalMasks(NamedTuple):
    """Multiplicative masks of one window, entries 0 or 1/keep. None: nothing is dropped there.

    The arrays are NumPy's or a framework's; being a named tuple, this is a pytree for every framework.

    Attributes:
        embedding: (B, T), scales the whole embedded token; equal tokens of a row share the value.
        input: per layer (M, B, E_i), constant over time. M = 1 if the gates share a mask, else G.
        state: per layer (M, B, H), constant over time and micro-steps.
        output: (B, H), constant over time.
    """

    embedding: Any = None
    input: Any = None
    state: Any = None
    output: Any = None

    def rows(self, rows: slice) -> VariationalMasks:
        """The masks of the batch rows in `rows`."""
        return VariationalMasks(
            embedding=None if self.embedding is None else self.embedding[rows],
            input=None if self.input is None else [mask[:, rows] for mask in self.input],
            state=None if self.state is None else [mask[:, rows] for mask in self.state],
            output=None if self.output is None else self.output[rows],
        )


NO_MASKS = VariationalMasks()


def sample_masks(
    config: RHNConfig,
    tokens: ArrayLike,
    rates: DropRates | Sequence[float] | Mapping[str, float],
    seed: int,
    step: int,
) -> VariationalMasks:
    """Draw the masks of one training window: a pure function of the arguments.

    Args:
        config: the architecture.
        tokens: (B, T) integers of the window; only equality of tokens within a row matters.
        rates: drop rates as `DropRates`, in its order, or by its names; a rate of 0 gives no mask at all.
        seed: the run's seed.
        step: number of the training step; masks are drawn anew for each.

    Returns:
        Float64 masks; see `VariationalMasks` for the shapes.

    Raises:
        ValueError: a rate is not in [0, 1), or tokens are not (B, T) integers.
    """
    rates = as_rates(rates)
    tokens = check_tokens("tokens", tokens)
    batch_size = tokens.shape[0]
    gate_masks = config.num_gate_masks

    def bernoulli(purpose: Purpose, rate: float, shape: tuple[int, ...], index: int = 0) -> NDArray[np.float64]:
        keep = 1.0 - rate
        return (uniform(seed, purpose, shape, step=step, index=index) < keep) / keep

    embedding = input_masks = state_masks = output = None
    if rates.drop_embedding:
        draws = bernoulli(Purpose.EMBEDDING_MASK, rates.drop_embedding, tokens.shape)  # (B, T), one per word type
        embedding = np.take_along_axis(draws, _word_type_of_each_position(tokens), axis=1)  # (B, T)
    if rates.drop_input:
        input_masks = [
            bernoulli(Purpose.INPUT_MASK, rates.drop_input, (gate_masks, batch_size, config.input_size(i)), i)
            for i in range(config.num_layers)
        ]
    if rates.drop_state:
        state_masks = [
            bernoulli(Purpose.STATE_MASK, rates.drop_state, (gate_masks, batch_size, config.hidden_size), i)
            for i in range(config.num_layers)
        ]
    if rates.drop_output:
        output = bernoulli(Purpose.OUTPUT_MASK, rates.drop_output, (batch_size, config.hidden_size))
    return VariationalMasks(embedding, input_masks, state_masks, output)


def as_rates(rates: DropRates | Sequence[float] | Mapping[str, float]) -> DropRates:
    """`rates` as `DropRates`; ValueError if one is unknown, missing or not in [0, 1)."""
    if isinstance(rates, Mapping):
        unknown = [name for name in rates if name not in DropRates._fields]
        if unknown:
            raise ValueError(f"drop rate {unknown[0]!r} is not known: accepted are {', '.join(DropRates._fields)}")
        rates = DropRates(**rates)
    elif len(rates) == len(DropRates._fields):
        rates = DropRates(*rates)
    else:
        raise ValueError(
            f"drop rates {rates!r} are not accepted: there must be one each for {', '.join(DropRates._fields)}"
        )
    for name, rate in rates._asdict().items():
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0.0 <= rate < 1.0:
            raise ValueError(f"{name}={rate!r} is not accepted: it must be a number from 0 up to, not including, 1")
    return rates


def check_masks(config: RHNConfig, masks: VariationalMasks, batch_size: int, length: int) -> None:
    """Raise ValueError unless every mask that is there has the shape that `VariationalMasks` states."""
    gate_masks = config.num_gate_masks
    expected: dict[str, tuple[int, ...]] = {"embedding": (batch_size, length)}
    for i in range(config.num_layers):
        expected[f"input[{i}]"] = (gate_masks, batch_size, config.input_size(i))
        expected[f"state[{i}]"] = (gate_masks, batch_size, config.hidden_size)
    expected["output"] = (batch_size, config.hidden_size)

    given = {"embedding": masks.embedding, "output": masks.output}
    for name in ("input", "state"):
        per_layer = getattr(masks, name)
        if per_layer is not None:
            if len(per_layer) != config.num_layers:
                raise ValueError(
                    f"masks.{name} has {len(per_layer)} entries, num_layers={config.num_layers} needs one each"
                )
            given.update({f"{name}[{i}]": mask for i, mask in enumerate(per_layer)})
    for name, mask in given.items():
        if mask is not None and tuple(mask.shape) != expected[name]:
            raise ValueError(f"masks.{name} has shape {tuple(mask.shape)}, needed is {expected[name]}")


def _word_type_of_each_position(tokens: NDArray[np.integer]) -> NDArray[np.intp]:
    """(B, T): which word type of its row a position holds, numbered from 0 by token id."""
    order = np.argsort(tokens, axis=1, kind="stable")  # (B, T) equal tokens stand together
    ordered = np.take_along_axis(tokens, order, axis=1)  # (B, T)
    rank = np.zeros(tokens.shape, dtype=np.intp)  # (B, T)
    rank[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    word_type = np.empty_like(rank)  # (B, T)
    np.put_along_axis(word_type, order, rank, axis=1)
    return word_type
