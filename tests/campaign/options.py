"""Wrong values of every option, made from the table of options: each must get one sentence that names the option."""

from __future__ import annotations

import random
import resource
import shutil
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from commands import SMALL, TEXT, call, end_of, start
from tally import Limit, Tally

from rhn.training.options import ALIASES, OPTIONS, OptionError, check_value
from rhn.training.options.row import Option
from rhn.training.terminal.read_words import literal as read_literal

VALUES = (
    *("0", "-1", "1.5", "-0.5", "1e400", "-1e400", "1e308", "nan", "float('nan')", "10**9", "1000000000", "1" * 400),
    *("4294967296", "18446744073709551615", "18446744073709551616", "9" * 5000, "1e-400", "-0.0", "1j", "0x10", "1_0"),
    *("", " ", "''", "None", "none", "True", "true", "False", "no", "[]", "()", "{}", "[1]", "(1,)", "{1}", "b'a'"),
    *("{'a': 1}", "{1: 2}", "[[[]]]", "(" * 300 + ")" * 300, "lambda: 1", "__import__('os')", "...", "abc", "ab c"),
    *("/", ".", "..", "../x", "/dev/null", "/dev/zero", "/proc/self/mem", "nowhere/x", "a/b", "~nosuchuser/x", "~"),
    *("'a\\0b'", "a\\x00b", "é", "\u202eabc", "\x1b[31m", "a\nb", "'a\\nb'", "$x_{$", "<b>", "%s", "x" * 300, "\udcff"),
    *("'2024'", "['a', 'b']", "['a', 'b', 'c']", "('a', 1, None)", "['text.txt'] * 3", "@", "=", "=1", "a=b"),
)
# Values that mean so much work that they are right, and take long.
TOO_MUCH = 64
BYTES = 4 * 2**30  # of memory that a command may have


def try_options(seed: int, tries: int, processes: int, folder: Path, limit: Limit) -> list[Tally]:
    """Call commands with wrong values, `tries` times in this process and `processes` times in one of their own."""
    draw = random.Random(seed)
    (folder / "text.txt").write_text(TEXT)
    within, alone = Tally("wrong options, in one process"), Tally("wrong options, in real processes")
    assert call("reference", ["with", *SMALL, "run=model"], folder)[0] == "done"
    checkpoint = str(folder / "runs" / "model" / "last.safetensors")
    with _little_memory():
        for number in limit.tries(tries + processes):
            option = draw.choice(list(OPTIONS.values()))
            value = draw.choice(VALUES) if draw.random() < 0.8 else _anything(draw)
            name = draw.choice([option.name, *(alias for alias in ALIASES if ALIASES[alias] == option.name)])
            command = draw.choice([*option.commands, "print_config"])
            if _is_much_work(option, value):
                continue
            opened = [] if command in ("train", "print_config") else [f"checkpoint={checkpoint}"]
            words = [command, "with", *SMALL, *opened, f"{name}={value}"]
            _judge(words, option, value, folder, within if number < tries else alone)
    return [within, alone]


@contextmanager
def _little_memory() -> Iterator[None]:
    """Whatever a wrong option asks for, this process and those that it starts get no more than a few gigabytes."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _judge(words: list[str], option: Option, value: str, folder: Path, tally: Tally) -> None:
    runs_before = _folders(folder)
    if "one process" in tally.area:
        end, sentence = call("reference", words, folder)
    else:
        try:
            end, sentence = end_of(start("reference", words, folder))
        except (ValueError, UnicodeEncodeError):  # the system itself lets no such word through
            return
    new = _folders(folder) - runs_before
    for name in new:
        shutil.rmtree(folder / name, ignore_errors=True)
    if end == "done":
        if _is_accepted(option, value):
            tally.survived("accepted")
        else:
            tally.failed(f"a wrong value is accepted: {words[0]} {words[-1]!r}")
    elif end == "refused":
        # A right value with which the training diverges: it was begun, and its folder says so.
        diverged = _is_accepted(option, value) and "with gradient norm" in sentence
        if new and not diverged:
            tally.failed(f"refused, and a folder is left: {words[0]} {words[-1]!r}: {sentence}")
        elif not _is_named(option, value, sentence):
            tally.failed(f"the sentence names no option: {words[0]} {words[-1]!r}: {sentence}")
        else:
            tally.survived("diverged, in one sentence" if diverged else "one sentence")
    else:
        tally.failed(f"{words[0]} {words[-1]!r}: {end}")


def _folders(folder: Path) -> set[str]:
    return {f"runs/{each.name}" for each in (folder / "runs").iterdir()}


def _is_accepted(option: Option, value: str) -> bool:
    try:
        check_value(option, read_literal(value.strip()))
    except OptionError:
        return False
    return True


def _is_named(option: Option, value: str, sentence: str) -> bool:
    """Whether a refusal says what it is about.

    That is the option. A value that is right in itself may be refused for the sake of another option, or be the name of
    a file that the system refuses.
    """
    if option.name in sentence:
        return True
    others = [name for name in OPTIONS if f"{name}=" in sentence or ("_" in name and name in sentence)]
    return _is_accepted(option, value) and bool(others or value in sentence)


def _is_much_work(option: Option, value: str) -> bool:
    """Whether it is a right value that would take long, or write outside of the folder."""
    literal = read_literal(value.strip())
    if not _is_accepted(option, value):
        return False
    if option.name in ("runs_path", "mc_file", "resume", "run"):
        return isinstance(literal, str) and ("/" in literal or literal.startswith((".", "~")))
    if option.name == "mc_samples":
        return literal > TOO_MUCH
    sizes = ("length", "hidden_size", "embedding_size", "recurrence_depth", "num_layers", "mc_rows")
    return option.name in sizes and literal is not None and TOO_MUCH < literal < 10**9


def _anything(draw: random.Random) -> str:
    kind = draw.randrange(4)
    if kind == 0:
        return str(draw.randrange(-(2**70), 2**70))
    if kind == 1:
        return repr(draw.uniform(-10, 10) * 10.0 ** draw.randrange(-300, 300))
    if kind == 2:
        return "".join(draw.choices(string.printable, k=draw.randrange(1, 20)))
    return "".join(chr(draw.randrange(1, 0xD800)) for _ in range(draw.randrange(1, 8)))
