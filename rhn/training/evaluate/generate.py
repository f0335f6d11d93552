"""The command `generate`: text sampled from a checkpoint, one token at a time. It needs no data."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rhn.backend import Model
from rhn.sampling import sample_tokens
from rhn.training.options import OptionError
from rhn.training.run.checkpoint import open_checkpoint
from rhn.training.terminal.console import say
from rhn_datasets import DataError
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
    """As `rhn.sampling.sample_tokens`, from a model of any backend."""

    def step(token: int, state: Any) -> tuple[NDArray[np.floating], Any]:
        logits, state = model.forward(np.array([[token]]), state)  # (1, 1, V)
        return logits[0, 0], state

    return sample_tokens(step, prompt, length, temperature=temperature, top_k=top_k, seed=seed)


def generate_text(backend_name: str, values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """The command: print a prompt and its continuation by a checkpoint, each token as soon as it is sampled.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    opened = open_checkpoint(backend_name, values, given)
    o, vocabulary = opened.options, opened.vocabulary
    try:
        prompt = vocabulary.encode(default_prompt(vocabulary) if o.prompt is None else o.prompt)
    except DataError as error:
        raise OptionError(f"prompt={o.prompt!r} is not accepted: {error}") from error
    drawn = generate(opened.model, prompt, o.length, temperature=o.temperature, top_k=o.top_k, seed=o.seed)
    for piece in decoded_pieces(vocabulary, chain(prompt.tolist(), drawn)):
        say(piece, end="")
    say("")


def default_prompt(vocabulary: Vocabulary) -> str:
    """The first of these that the vocabulary has: a line end, a space, its first symbol."""
    line_end = END_OF_LINE if vocabulary.level == "word" else "\n"
    if line_end in vocabulary.symbols:
        return "\n"
    return " " if " " in vocabulary.symbols else vocabulary.symbols[0]


def decoded_pieces(vocabulary: Vocabulary, tokens: Iterable[int]) -> Iterator[str]:
    """The text of `tokens` in pieces, one per token; joined, they equal `vocabulary.decode` of all tokens.

    A byte within a character yields an empty piece; the last byte yields the character.
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
