"""Checkpoints that were damaged, and checkpoints that somebody has made up, through the readers and the commands."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from commands import SMALL, TEXT, call
from tally import Limit, Tally

import rhn
from rhn.checkpoint import load_language_model
from rhn.training.run.checkpoint import TrainedModel

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "a", "evil.safetensors", "../../evil", "/dev/zero", "\x1b]0;evil\x07", "a\0b", "\ud800", "9" * 5000, "relu"),
    *([], [[]], {}, {"a": 1}, [1, 2, 3], ["a", "a"], ["\ud800"], [{}] * 3),
)
DTYPES = (np.int64, np.uint8, np.bool_, np.float16, np.float32, np.float64, np.complex64)
COMMANDS = (*("evaluate", "generate", "analyse", "evaluate_mc", "evaluate_dynamic", "evaluate_cache", "export_hub"),)


def try_checkpoints(seed: int, tries: int, through_commands: int, folder: Path, limit: Limit) -> list[Tally]:
    """Read `tries` bad files, and give `through_commands` of them to the commands."""
    draw = random.Random(seed)
    (folder / "text.txt").write_text(TEXT)
    assert call("reference", ["with", *SMALL, "run=model", "epochs=2", "max_steps=70"], folder)[0] == "done"
    good = (folder / "runs" / "model" / "last.safetensors").read_bytes()
    file = folder / "bad.safetensors"
    damaged, made_up = Tally("damaged checkpoints, read"), Tally("made-up checkpoints, read")
    commands = Tally("both, through the commands")
    file.write_bytes(good)
    expected = rhn.load_checkpoint(file)
    for number in limit.tries(tries):
        if number % 2:
            file.write_bytes(_damaged(draw, good))
            _read(file, damaged, expected)
        else:
            file.write_bytes(_made_up(draw, expected))
            _read(file, made_up, None)
        if number < through_commands:
            _use(draw, folder, file, commands)
    return [damaged, made_up, commands]


def _read(file: Path, tally: Tally, expected: Any) -> None:
    """Whatever the file holds, a reader gives what was saved or one CheckpointError."""
    ends = set()
    for read in (rhn.load_checkpoint, load_language_model, TrainedModel.read):
        try:
            found = read(file)
        except rhn.CheckpointError as error:
            ends.add("CheckpointError")
            if "\n" in str(error).strip("\n"):
                ends.add(f"several lines: {error}")
        except Exception as error:
            ends.add(f"{type(error).__name__} from {read.__name__}: {error}")
        else:
            is_wrong = read is rhn.load_checkpoint and expected is not None and not _is_same(found, expected)
            ends.add("other content, silently" if is_wrong else "read")
    if ends <= {"CheckpointError", "read"}:
        tally.survived("CheckpointError" if "CheckpointError" in ends else "read, with its content")
    else:
        tally.failed(f"{sorted(ends)}: {file.read_bytes()[:200]!r}")


def _is_same(found: Any, expected: Any) -> bool:
    (ours, our_metadata), (theirs, their_metadata) = found, expected
    return (
        our_metadata == their_metadata
        and ours.keys() == theirs.keys()
        and all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    )


def _use(draw: random.Random, folder: Path, file: Path, tally: Tally) -> None:
    """A command ends or says one sentence, and writes nowhere but beside the checkpoint."""
    if draw.random() < 0.3:
        run = folder / "runs" / "hostile"
        run.mkdir(exist_ok=True)
        (run / "options.json").write_bytes((folder / "runs" / "model" / "options.json").read_bytes())
        (run / "last.safetensors").write_bytes(file.read_bytes())
        words = ["with", "resume=runs/hostile", "max_steps=75"]
    else:
        words = [draw.choice(COMMANDS), "with", f"checkpoint={file.name}", "progress=False", "mc_samples=2", "length=5"]
    end, _ = call("reference", words, folder)
    known = {"text.txt", "runs", file.name}
    strange = [
        each.name
        for each in folder.iterdir()
        if each.name not in known and not each.name.startswith(("bad.", ".bad.", "report."))
    ]
    if end not in ("done", "refused"):
        tally.failed(f"{' '.join(words)}: {end}")
    elif strange:
        tally.failed(f"{' '.join(words)} has written {strange}")
    else:
        tally.survived("one sentence" if end == "refused" else "done")
    for each in [*folder.glob("bad.*"), *folder.glob(".bad.*"), *map(folder.joinpath, strange)]:
        if each.is_dir():  # of export_hub
            shutil.rmtree(each)
        elif each != file:
            each.unlink(missing_ok=True)


def _damaged(draw: random.Random, good: bytes) -> bytes:
    """`good` as a bad disk or a broken transfer leaves it."""
    content = bytearray(good)
    place = draw.randrange(len(content))
    header = 8 + struct.unpack("<Q", good[:8])[0]
    kind = draw.randrange(8)
    if kind == 0:
        return good[:place]
    if kind == 1:
        return good + draw.randbytes(draw.randrange(1, 100))
    if kind == 2:
        return good[:place] + draw.randbytes(draw.randrange(1, 50)) + good[place:]
    if kind == 3:
        return good[:place] + bytes(min(4096, len(good) - place)) + good[place + 4096 :]
    if kind == 4:
        content[:8] = struct.pack("<Q", draw.choice([0, 1, 2**20, 2**40, 2**63, 2**64 - 1, header, len(good)]))
        return bytes(content)
    for _ in range(1 if kind == 5 else draw.randrange(1, 20)):
        content[draw.randrange(header) if kind == 6 else draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return bytes(content)


def _made_up(draw: random.Random, expected: Any) -> bytes:
    """A whole file whose checksum is right, with one thing in it that no run has written."""
    tensors, metadata = dict(expected[0]), json.loads(json.dumps(expected[1]))
    if draw.random() < 0.4:
        name = draw.choice(list(tensors))
        kind = draw.randrange(5)
        if kind == 0:
            del tensors[name]
        elif kind == 1:
            tensors[name] = np.zeros([draw.choice([0, 1, 2, 7]) for _ in range(draw.randrange(4))], draw.choice(DTYPES))
        elif kind == 2:
            tensors[name] = tensors[name].astype(draw.choice(DTYPES))
        elif kind == 3:
            tensors[name] = np.full_like(tensors[name], draw.choice([np.nan, np.inf, -np.inf, 3e38]))
        else:
            tensors[draw.choice(["state.9", "state.x", "optimizer.step", "optimizer.mean.a", "\x1b[31m", ""])] = (
                np.ones(2)
            )
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    else:
        place, key = metadata, draw.choice(list(metadata))
        while isinstance(place[key], dict | list) and place[key] and draw.random() < 0.8:
            place = place[key]
            key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
        if draw.random() < 0.15 and isinstance(place, dict):
            del place[key]
        else:
            place[key] = draw.choice(ODD)
    document = json.dumps(metadata)
    if draw.random() < 0.1:
        document = draw.choice(
            ["[" * 3000, "[" * 90000, "9" * 5000, "[]", '"x"', "null", "5", "{}", '{"a":1,"a":2}', ""]
        )
    header = {"format": rhn.checkpoint.FORMAT, "format_version": "1", "metadata": document}
    if draw.random() < 0.05:
        header[draw.choice(list(header))] = draw.choice(["", "2", "\x1b", "-1"])
    return safetensors.numpy.save(tensors, metadata=header)
