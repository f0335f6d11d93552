"""The folder of a finished run, for tests of what reads it."""

import json
import math
from pathlib import Path
from typing import Any

OPTIONS = {
    "dataset": "ptb",
    "level": None,
    "hidden_size": 830,
    "recurrence_depth": 10,
    "num_layers": 1,
    "embedding_size": None,
    "tie_weights": True,
    "couple_gates": True,
    "activation": "tanh",
    "epochs": 3,
    "run": "<script>alert(1)</script>",
}

HISTORY = [
    {
        "epoch": epoch,
        "step": 1327 * epoch,
        "learning_rate": 0.2 / epoch,
        "train_nats": math.log(train),
        "valid_nats": math.log(valid),
        "test_nats": math.log(valid - 2),
        "valid_tokens": 73_500,
        "test_tokens": 81_900,
        "gradient_norm": 5.0 + epoch,
        "tokens_per_second": 80_000.0 + epoch,
        "seconds": 1300.0,
        "waiting_seconds": 2.6,
    }
    for epoch, train, valid in ((1, 900, 500), (2, 200, 150), (3, 110, 155))
]

SUMMARY = {
    "best_epoch": 2,
    "parameters": 23_482_400,
    "metric": "perplexity",
    "valid": {"nats": math.log(149), "standard_error": 0.01, "tokens": 73_759, "level": "word", "value": 149.0},
    "test": {"nats": math.log(147), "standard_error": math.nan, "tokens": 82_429, "level": "word", "value": 147.0},
    "order_two_baseline": None,
}

ENVIRONMENT = {"backend": "torch", "torch": "2.13.0", "device": "NVIDIA H200"}

CONTENTS = {
    "options.json": json.dumps(OPTIONS),
    "environment.json": json.dumps(ENVIRONMENT),
    "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in HISTORY),
    "summary.json": json.dumps(SUMMARY),
    "sample.txt": "the <unk> of N & more\n",
    "best.mc-test.json": json.dumps({"shown": {"test (batch 1, MC dropout)": "perplexity 143.5 ± 1.4"}, "samples": 9}),
}


def make_run(folder: Path, **changes: Any) -> Path:
    """A run folder; `changes` replace options."""
    folder.mkdir()
    for name, text in CONTENTS.items():
        (folder / name).write_text(text)
    (folder / "options.json").write_text(json.dumps({**OPTIONS, **changes}))
    return folder


def row_with(**changes: Any) -> str:
    return json.dumps({**HISTORY[0], **changes}) + "\n"
