"""The command `generate`: text from a checkpoint, printed as it is drawn. It needs no data but the checkpoint."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from rhn.training.checks import require_integer, require_number
from rhn.training.evaluate.generate import generate
from rhn.training.options import OptionError, pick
from rhn.training.run.checkpoint import open_checkpoint
from rhn_datasets.vocabulary import END_OF_LINE, Vocabulary


@dataclass(frozen=True)
class GenerationOptions:
    """What text is wanted; the names are those of the command line.

    Args:
        prompt: the text to go on with; None: a line end, or a space where the vocabulary has none.
        length: tokens to draw, at least 1.
        temperature: divides the logits, above 0.
        top_k: draw from the k likeliest tokens only, at least 1; None is all.
        seed: of the draws.

    Raises:
        OptionError: an option has a value outside of what is accepted.
    """

    prompt: str | None
    length: int
    temperature: float
    top_k: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.prompt is not None and not (isinstance(self.prompt, str) and self.prompt):
            raise OptionError(
                f"prompt={self.prompt!r} is not accepted: expected text of at least one symbol, with quotes inside"
                " the shell's where it could be something else, as in 'prompt=\"1984\"'"
            )
        require_integer("length", self.length, 1)
        require_number("temperature", self.temperature, zero=False)
        if self.top_k is not None:
            require_integer("top_k", self.top_k, 1)
        require_integer("seed", self.seed, 0)


def generate_text(backend_name: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Print a prompt and what a checkpoint makes of it, every token as soon as it is drawn.

    The arguments are those of `open_checkpoint`.

    Raises:
        ValueError, OSError, ImportError: with one sentence for the user.
    """
    pick(GenerationOptions, options)  # refuses what is impossible before anything is loaded
    opened = open_checkpoint(backend_name, options, given)
    wanted, vocabulary = pick(GenerationOptions, opened.options), opened.vocabulary
    prompt = vocabulary.encode(default_prompt(vocabulary) if wanted.prompt is None else wanted.prompt)
    drawn = generate(
        opened.model, prompt, wanted.length, temperature=wanted.temperature, top_k=wanted.top_k, seed=wanted.seed
    )
    for piece in decoded_pieces(vocabulary, chain(prompt.tolist(), drawn)):
        print(piece, end="", flush=True)
    print()


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
