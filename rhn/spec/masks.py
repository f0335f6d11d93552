"""Variational dropout masks (Gal and Ghahramani 2016), drawn in NumPy so that every backend sees the same ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rhn.spec.arguments import check_flag, check_fraction, check_tokens
from rhn.spec.config import RHNConfig
from rhn.spec.random import Purpose, uniform


class DropRates(NamedTuple):
    """Probability in [0, 1) of dropping a unit, per kind of mask."""

    drop_embedding: float = 0.0
    drop_input: float = 0.0
    drop_state: float = 0.0
    drop_output: float = 0.0
    drop_update: float = 0.0


class VariationalMasks(NamedTuple):
    """Multiplicative masks of one window, with entries 0 or 1/keep, except for `carried`. None drops nothing.

    The arrays are NumPy arrays or those of a framework. A named tuple is a pytree for every framework.

    Attributes:
        embedding: (B, T), scales a whole embedding vector; equal tokens of a row share the value.
        input: per layer (M, B, E_i), constant over time, or (M, B, T, E_i). M = 1 if the gates share a mask, else G.
        state: per layer (M, B, H), constant over time and micro-steps.
        output: (B, H), constant over time, or (B, T, H).
        update: per layer (B, H), for the candidate h, constant over time and micro-steps.
        carried: (B,), 0 or 1, multiplies the state that each row carries over from the previous window.
    """

    embedding: Any = None
    input: Any = None
    state: Any = None
    output: Any = None
    update: Any = None
    carried: Any = None

    def rows(self, rows: slice) -> VariationalMasks:
        """The masks of the batch rows in `rows`."""
        return VariationalMasks(
            embedding=None if self.embedding is None else self.embedding[rows],
            input=None if self.input is None else [mask[:, rows] for mask in self.input],
            state=None if self.state is None else [mask[:, rows] for mask in self.state],
            output=None if self.output is None else self.output[rows],
            update=None if self.update is None else [mask[rows] for mask in self.update],
            carried=None if self.carried is None else self.carried[rows],
        )

    def columns(self, columns: slice) -> VariationalMasks:
        """The masks of the time steps in `columns`; masks that are constant over time stay the same."""
        per_time_step = self.input is not None and self.input[0].ndim == 4
        return self._replace(
            embedding=None if self.embedding is None else self.embedding[:, columns],
            input=[mask[:, :, columns] for mask in self.input] if per_time_step else self.input,
            output=self.output[:, columns] if self.output is not None and self.output.ndim == 3 else self.output,
        )

    def map(self, function: Callable[[Any], Any]) -> VariationalMasks:
        """Apply `function` to every mask that is not None."""
        return VariationalMasks(
            embedding=None if self.embedding is None else function(self.embedding),
            input=None if self.input is None else [function(mask) for mask in self.input],
            state=None if self.state is None else [function(mask) for mask in self.state],
            output=None if self.output is None else function(self.output),
            update=None if self.update is None else [function(mask) for mask in self.update],
            carried=None if self.carried is None else function(self.carried),
        )

    def of_layer(self, layer: int) -> tuple[Any, Any, Any]:
        """Input mask, state mask and update mask of one layer; None for a mask that drops nothing."""
        return (
            None if self.input is None else self.input[layer],
            None if self.state is None else self.state[layer],
            None if self.update is None else self.update[layer],
        )


NO_MASKS = VariationalMasks()


def sample_masks(
    config: RHNConfig,
    tokens: ArrayLike,
    rates: DropRates | Sequence[float] | Mapping[str, float],
    seed: int,
    step: int,
    *,
    time_masks: bool = False,
    reset_probability: float = 0.0,
) -> VariationalMasks:
    """Draw the masks of one training window: a pure function of the arguments.

    Args:
        config: the architecture.
        tokens: (B, T) integers of the window; it matters only which tokens of a row are equal.
        rates: drop rates as `DropRates`, as a sequence in its order (the last may be left out), or by its names. A rate
            of 0 gives no mask.
        seed: the seed of the run.
        step: number of the training step; each step has newly drawn masks.
        time_masks: draw input and output masks for each time step (SPEC.md 4.10).
        reset_probability: probability that a row starts the window from a zero state; 0 gives no `carried`.

    Returns:
        Float64 masks; see `VariationalMasks` for the shapes.

    Raises:
        ValueError: a rate is not in [0, 1), or tokens are not (B, T) integers.
    """
    rates = as_rates(rates)
    check_flag("time_masks", time_masks)
    check_fraction("reset_probability", reset_probability)
    tokens = check_tokens("tokens", tokens)
    batch_size = tokens.shape[0]
    drawn_for = tokens.shape if time_masks else tokens.shape[:1]  # (B, T) or (B,): each has its own draw
    gate_masks = config.num_gate_masks

    def bernoulli(purpose: Purpose, rate: float, shape: tuple[int, ...], index: int = 0) -> NDArray[np.float64]:
        keep = 1.0 - rate
        return (uniform(seed, purpose, shape, step=step, index=index) < keep) / keep

    embedding = input_masks = state_masks = output = update = carried = None
    if rates.drop_embedding:
        draws = bernoulli(Purpose.EMBEDDING_MASK, rates.drop_embedding, tokens.shape)  # (B, T), one per word type
        embedding = np.take_along_axis(draws, _word_type_of_each_position(tokens), axis=1)  # (B, T)
    if rates.drop_input:
        input_masks = [
            bernoulli(Purpose.INPUT_MASK, rates.drop_input, (gate_masks, *drawn_for, config.input_size(i)), i)
            for i in range(config.num_layers)
        ]
    if rates.drop_state:
        state_masks = [
            bernoulli(Purpose.STATE_MASK, rates.drop_state, (gate_masks, batch_size, config.hidden_size), i)
            for i in range(config.num_layers)
        ]
    if rates.drop_output:
        output = bernoulli(Purpose.OUTPUT_MASK, rates.drop_output, (*drawn_for, config.hidden_size))
    if rates.drop_update:
        update = [
            bernoulli(Purpose.UPDATE_MASK, rates.drop_update, (batch_size, config.hidden_size), i)
            for i in range(config.num_layers)
        ]
    if reset_probability:
        draws = uniform(seed, Purpose.CARRIED_STATE, (batch_size,), step=step)  # (B,)
        carried = (draws < 1.0 - reset_probability).astype(np.float64)
    return VariationalMasks(embedding, input_masks, state_masks, output, update, carried)


def as_rates(rates: DropRates | Sequence[float] | Mapping[str, float]) -> DropRates:
    """`rates` as `DropRates`; ValueError if a rate is unknown, missing or not in [0, 1)."""
    if isinstance(rates, Mapping):
        unknown = [name for name in rates if name not in DropRates._fields]
        if unknown:
            raise ValueError(f"drop rate {unknown[0]!r} is not known: accepted are {', '.join(DropRates._fields)}")
        rates = DropRates(**rates)
    elif len(rates) in (len(DropRates._fields) - 1, len(DropRates._fields)):
        rates = DropRates(*rates)
    else:
        raise ValueError(
            f"drop rates {rates!r} are not accepted: expected one for each of {', '.join(DropRates._fields)}"
        )
    for name, rate in rates._asdict().items():
        check_fraction(name, rate)
    return rates


@dataclass(frozen=True)
class StreamMasks:
    """Masks of S samples, each with one set of masks for a whole stream; sample k is batch row k.

    Attributes:
        samples: S, the number of samples.
        word_types: (S, V), scales the embedding of each word type; None drops nothing.
        others: input, state, output and update masks of S rows; no embedding mask.
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
    """Draw the masks of the samples with the numbers `samples`. Each is a pure function of its number (SPEC.md 4.8).

    With `one_draw_for_all_words`, as in the authors' program, the draw of the first word type is used for all of them.
    """
    gate_masks = config.num_gate_masks

    def bernoulli(index: int, rate: float, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """(S, *shape), 0 or 1/keep."""
        draws = [uniform(seed, Purpose.MONTE_CARLO, shape, step=sample, index=index) for sample in samples]
        return (np.stack(draws) < 1.0 - rate) / (1.0 - rate)

    word_types = output = input_masks = state_masks = update = None
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
    if rates.drop_update:
        first = 2 + 2 * config.num_layers
        update = [bernoulli(first + i, rates.drop_update, (config.hidden_size,)) for i in range(config.num_layers)]
    return StreamMasks(len(samples), word_types, VariationalMasks(None, input_masks, state_masks, output, update))


def _word_type_of_each_position(tokens: NDArray[np.integer]) -> NDArray[np.intp]:
    """(B, T): the number of the word type at each position; the types of a row are numbered from 0 by token id."""
    order = np.argsort(tokens, axis=1, kind="stable")  # (B, T) equal tokens stand together
    ordered = np.take_along_axis(tokens, order, axis=1)  # (B, T)
    rank = np.zeros(tokens.shape, dtype=np.intp)  # (B, T)
    rank[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    word_type = np.empty_like(rank)  # (B, T)
    np.put_along_axis(word_type, order, rank, axis=1)
    return word_type
