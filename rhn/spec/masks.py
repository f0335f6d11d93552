"""Variational dropout masks (Gal and Ghahramani 2016), drawn in NumPy so that every backend sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.arguments import check_fraction, check_tokens
from rhn.spec.config import RHNConfig
from rhn.spec.random import Purpose, uniform


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

    def map(self, function: Callable[[Any], Any]) -> VariationalMasks:
        """`function` of every mask that is there."""
        return VariationalMasks(
            embedding=None if self.embedding is None else function(self.embedding),
            input=None if self.input is None else [function(mask) for mask in self.input],
            state=None if self.state is None else [function(mask) for mask in self.state],
            output=None if self.output is None else function(self.output),
        )

    def of_layer(self, layer: int) -> tuple[Any, Any]:
        """Input mask (M, B, E_i) and state mask (M, B, H) of one layer; None where nothing is dropped."""
        return (
            None if self.input is None else self.input[layer],
            None if self.state is None else self.state[layer],
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
        raise ValueError(f"drop rates {rates!r} are not accepted: expected one each for {', '.join(DropRates._fields)}")
    for name, rate in rates._asdict().items():
        check_fraction(name, rate)
    return rates


@dataclass(frozen=True)
class StreamMasks:
    """Masks of S samples, one set each for a whole stream; sample k is batch row k.

    Attributes:
        samples: S.
        word_types: (S, V), scales the embedding of each word type; None drops nothing.
        others: input, state and output masks of S rows; no embedding mask.
    """

    samples: int
    word_types: NDArray[np.float64] | None
    others: VariationalMasks

    def of_window(self, tokens: NDArray[np.integer]) -> VariationalMasks:
        """The masks of the window `tokens` (S, T)."""
        if self.word_types is None:
            return self.others
        return self.others._replace(embedding=np.take_along_axis(self.word_types, tokens, axis=1))  # (S, T)


def sample_stream_masks(
    config: RHNConfig, rates: DropRates, seed: int, samples: range, *, one_draw_for_all_words: bool = False
) -> StreamMasks:
    """Draw the masks of the samples numbered `samples`: each a pure function of its number, as SPEC.md 4.8 says.

    `one_draw_for_all_words` is the authors' way: the first word type's draw decides for all of them.
    """
    gate_masks = config.num_gate_masks

    def bernoulli(index: int, rate: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """(S, *shape), 0 or 1/keep."""
        draws = [uniform(seed, Purpose.MONTE_CARLO, shape, step=sample, index=index) for sample in samples]
        return (np.stack(draws) < 1.0 - rate) / (1.0 - rate)

    word_types = output = input_masks = state_masks = None
    if rates.drop_embedding:
        word_types = bernoulli(0, rates.drop_embedding, (config.vocab_size,))  # (S, V)
        if one_draw_for_all_words:
            word_types = np.repeat(word_types[:, :1], config.vocab_size, axis=1)  # (S, V)
    if rates.drop_output:
        output = bernoulli(1, rates.drop_output, (config.hidden_size,))  # (S, H)
    if rates.drop_input:
        input_masks = [
            bernoulli(2 + 2 * i, rates.drop_input, (gate_masks, config.input_size(i))).swapaxes(0, 1)  # (M, S, E_i)
            for i in range(config.num_layers)
        ]
    if rates.drop_state:
        state_masks = [
            bernoulli(3 + 2 * i, rates.drop_state, (gate_masks, config.hidden_size)).swapaxes(0, 1)  # (M, S, H)
            for i in range(config.num_layers)
        ]
    return StreamMasks(len(samples), word_types, VariationalMasks(None, input_masks, state_masks, output))


def _word_type_of_each_position(tokens: NDArray[np.integer]) -> NDArray[np.intp]:
    """(B, T): which word type of its row a position holds, numbered from 0 by token id."""
    order = np.argsort(tokens, axis=1, kind="stable")  # (B, T) equal tokens stand together
    ordered = np.take_along_axis(tokens, order, axis=1)  # (B, T)
    rank = np.zeros(tokens.shape, dtype=np.intp)  # (B, T)
    rank[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    word_type = np.empty_like(rank)  # (B, T)
    np.put_along_axis(word_type, order, rank, axis=1)
    return word_type
