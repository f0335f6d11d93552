"""The command `generate`: text from a checkpoint, one token at a time. It needs no data but the checkpoint."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.spec.random import Purpose, uniform
from rhn.training.console import say
from rhn.training.run.checkpoint import open_checkpoint
from rhn_datasets.vocabulary import END_OF_LINE, Vocabulary


def generate(
    model: Model,
    prompt: NDArray[np.integer],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> Iterator[int]:
    """Yield `length` tokens that continue `prompt`, drawn from the model's distribution.

    Args:
        model: to draw from.
        prompt: (n,) at least one token, read first.
        length: number of tokens to draw, at least 1.
        temperature: divides the logits; towards 0 the likeliest token always wins.
        top_k: draw only from the k likeliest tokens; None is all.
        seed: of the draws, which depend on nothing else.

    Raises:
        ValueError: an argument is outside of what is accepted.
    """
    if len(prompt) == 0:
        raise ValueError("prompt='' is not accepted: expected at least one token")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature!r} is not accepted: expected a number above 0")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k!r} is not accepted: expected an integer of at least 1, or None")
    draws = uniform(seed, Purpose.GENERATION, (length,))
    state = None
    for token in prompt:  # one at a time, so that a backend that compiles per shape compiles only once
        logits, state = model.forward(np.array([[token]]), state)  # (1, 1, V)
    for draw in draws:
        scaled = logits[0, 0].astype(np.float64) / temperature  # (V,)
        if top_k is not None and top_k < len(scaled):
            scaled[scaled < np.sort(scaled)[-top_k]] = -np.inf
        cumulative = np.cumsum(np.exp(scaled - scaled.max()))  # (V,)
        token = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
        yield token
        logits, state = model.forward(np.array([[token]]), state)


def generate_text(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """The command: print a prompt and what a checkpoint makes of it, every token as soon as it is drawn.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    opened = open_checkpoint(backend_name, values, given)
    o, vocabulary = opened.options, opened.vocabulary
    prompt = vocabulary.encode(default_prompt(vocabulary) if o.prompt is None else o.prompt)
    drawn = generate(opened.model, prompt, o.length, temperature=o.temperature, top_k=o.top_k, seed=o.seed)
    for piece in decoded_pieces(vocabulary, chain(prompt.tolist(), drawn)):
        say(piece, end="")
    say("")


def default_prompt(vocabulary: Vocabulary) -> str:
    """A line end, a space, or the first symbol: the first of these that the vocabulary has."""
    line_end = END_OF_LINE if vocabulary.level == "word" else "\n"
    if line_end in vocabulary.symbols:
        return "\n"
    return " " if " " in vocabulary.symbols else vocabulary.symbols[0]


def decoded_pieces(vocabulary: Vocabulary, tokens: Iterable[int]) -> Iterator[str]:
    """The text of `tokens` piece by piece; joined, the pieces are what `vocabulary.decode` makes of all tokens.

    A byte within a character gives an empty piece; the character comes with its last byte.
    """
    symbols = (vocabulary.symbols[token] for token in tokens)
    if vocabulary.level == "char":
        yield from symbols
    elif vocabulary.level == "byte":
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for symbol in symbols:
            yield decoder.decode(symbol.encode("latin-1"))
        yield decoder.decode(b"", final=True)
    else:
        at_line_start = True
        for symbol in symbols:
            if symbol == END_OF_LINE:
                yield "\n"
            else:
                yield symbol if at_line_start else f" {symbol}"
            at_line_start = symbol == END_OF_LINE
