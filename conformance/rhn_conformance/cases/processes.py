"""Two processes train like one (SPEC.md 9.1): the same training, with all masks, weight decay and clipping on.

A backend is tested in two processes on this machine. `python -m rhn_conformance.cases.processes BACKEND FILE` is one
of them. Its environment has the variables that the frameworks' own launchers would set.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from rhn.backend import Backend, load_backend
from rhn.processes import ALONE, ParallelBackend, Processes
from rhn.reference_backend import ReferenceBackend
from rhn.spec.config import RHNConfig
from rhn.spec.masks import DropRates
from rhn.spec.optimizers import Optimizer
from rhn.spec.parameters import Parameters
from rhn_conformance.case import Answers, Case, Check, Inputs, Tensors
from rhn_conformance.cases.numbers import Description, make_inputs

COUNT = 2
SECONDS = 300.0  # the most that two processes may take, mainly for compiling

_SGD = Description(
    name="processes-sgd",
    clauses=("9.1",),
    config=RHNConfig(vocab_size=11, hidden_size=6, recurrence_depth=2, share_gate_masks=False),
    batch_size=4,
    num_steps=10,
    rates=DropRates(drop_embedding=0.3, drop_input=0.4, drop_state=0.3, drop_output=0.5),
    given_state=True,
    weight_decay=0.05,
    max_grad_norm=0.5,
)
_ADAM = replace(
    _SGD,
    name="processes-adam",
    config=replace(_SGD.config, tie_weights=False, embedding_size=5),
    optimizer=Optimizer("adam"),
    learning_rate=0.01,
)


@dataclass(frozen=True)
class ProcessesInputs:
    """Trainings that several processes do together, one after the other."""

    trainings: tuple[Inputs, ...]

    reusable = False

    @property
    def parameters(self) -> Parameters:
        """The parameters of the first training."""
        return self.trainings[0].parameters

    @property
    def kind(self) -> Hashable:
        """See `Inputs.kind`."""
        return "processes"

    @property
    def program(self) -> Hashable:
        """See `Inputs.program`."""
        return "processes"

    def build(self, backend: Backend, dtype: str, device: str | None) -> Tensors:
        """Start the processes and return all their answers at once. `device` is always the CPU."""
        if getattr(backend, "emulates_processes", False):
            return train_all(backend, Processes(shares=COUNT), self)
        answers = train_in_processes(backend.name, COUNT)
        for rank in range(1, COUNT):
            for name, tensor in answers[0].items():
                np.testing.assert_array_equal(answers[rank][name], tensor, f"{name} of process {rank} and process 0")
        return answers[0]


PROCESSES = Check("processes", ("9.1",), lambda answers, inputs: answers)


def processes_case() -> Case:
    """The case, in float64: another order of summation then changes far less than a mistake does."""
    return Case(
        name="two-processes",
        clauses=("9.1",),
        checks=(PROCESSES,),
        inputs=processes_inputs,
        expected=_answers,
        dtypes=("float64",),
        of_processes=True,
    )


@cache
def processes_inputs() -> ProcessesInputs:
    """The inputs of the case."""
    return ProcessesInputs((make_inputs(_SGD), make_inputs(_ADAM)))


@cache
def _answers() -> Answers:
    return {PROCESSES.name: train_all(ReferenceBackend(), ALONE, processes_inputs())}


def train_all(backend: Backend, processes: Processes, inputs: ProcessesInputs) -> Tensors:
    """Loss and norm of every step, and the final state and weights, with the rows of all processes put together."""
    return {
        f"{training.optimizer.name}: {name}": tensor
        for training in inputs.trainings
        for name, tensor in _train(backend, processes, training).items()
    }


def _train(backend: Backend, processes: Processes, inputs: Inputs) -> Tensors:
    together: dict[str, Any] = {} if processes == ALONE else {"processes": processes}
    model = backend.build(inputs.config, inputs.parameters, "float64", "cpu", inputs.optimizer, **together)
    rows = processes.rows(len(inputs.double_window.tokens))
    state = [s[rows] for s in inputs.state or []]
    losses, norms = [], []
    for step in inputs.steps:
        w = step.window
        masks = None if w.masks is None else w.masks.rows(rows)
        numbers = step.learning_rate, step.weight_decay, step.max_grad_norm
        loss, state = model.train_step(w.tokens[rows], w.targets[rows], state, masks, *numbers)
        losses.append(model.to_numpy(loss))
        norms.append(model.to_numpy(model.last_grad_norm))
    ends = {f"state.{layer}": processes.gather_rows(model.to_numpy(s)) for layer, s in enumerate(state)}
    memory = {f"memory of {name}": np.asarray(tensor) for name, tensor in model.optimizer_state().items()}
    return {"losses": np.array(losses), "norms": np.array(norms), **ends, **model.parameters(), **memory}


# ---------------------------------------------------------------------------------------------------------------------
# Processes
# ---------------------------------------------------------------------------------------------------------------------


def train_in_processes(backend: str, count: int) -> list[Tensors]:
    """The answers of each of `count` processes.

    Raises:
        RuntimeError: a process has failed; the message is the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{rank}.npz" for rank in range(count)]
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, backend, str(file)],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for file, variables in zip(files, environments(count), strict=True)
        ]
        try:
            said = [process.communicate(timeout=SECONDS)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        for rank, process in enumerate(processes):
            if process.returncode:
                raise RuntimeError(f"process {rank} of {count} has failed: {said[rank].strip()[-500:]}")
        return [_read(file) for file in files]


def environments(count: int) -> list[dict[str, str]]:
    """Environment variables for each of `count` processes, by which PyTorch, JAX and TensorFlow find the others."""
    *workers, port = (f"localhost:{_free_port()}" for _ in range(count + 1))
    return [
        {
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": port.partition(":")[2],
            "JAX_COORDINATOR_ADDRESS": port,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(rank),
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}),
        }
        for rank in range(count)
    ]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return int(listening.getsockname()[1])


def _read(file: Path) -> Tensors:
    with np.load(file) as arrays:
        return dict(arrays)


def _train_here(backend_name: str, file: str) -> None:
    backend = load_backend(backend_name)
    if not isinstance(backend, ParallelBackend):
        raise ValueError(f"backend {backend_name!r} trains in one process only: it has no method join_processes")
    answers: dict[str, Any] = train_all(backend, backend.join_processes("cpu"), processes_inputs())
    np.savez(file, **answers)


if __name__ == "__main__":
    _train_here(*sys.argv[1:])
