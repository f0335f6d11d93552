"""Several processes train one model, as TF_CONFIG names them; that they compute what one does, the suite says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from cases import make_case, relative_error
from two_processes import Process, check_killed_as_two_resumed_by_one, free_address, start_each

from rhn.processes import ALONE, ProcessLostError
from rhn_tf.backend import TensorFlowBackend
from rhn_tf.backend.processes import TensorFlowProcesses, join_processes, lost_processes


def tf_config(workers: Sequence[str], rank: int) -> str:
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})


def start_two(words: Sequence[str]) -> tuple[Callable[[], object], Process]:
    workers = [free_address(), free_address()]
    return start_each("tf", words, [{"TF_CONFIG": tf_config(workers, rank)} for rank in range(2)])


def test_begun_by_one_killed_as_two_resumed_by_one_ends_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_killed_as_two_resumed_by_one("tf", start_two, tmp_path, monkeypatch) == 1


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of elements of all that is sent. The two processes have the same rows, so that sums are doubles."""
    sizes: list[int] = []

    def double(array: Any) -> Any:
        sizes.append(array.size)
        return 2 * array

    def all_reduce(self: TensorFlowProcesses, tensor: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(double, [tensor], tensor.dtype), tensor.shape)

    monkeypatch.setattr(TensorFlowProcesses, "_all_reduce", all_reduce)
    return sizes


def test_a_step_sends_once_gradients_and_loss(sent: list[int]) -> None:
    case = make_case()
    processes = TensorFlowProcesses(rank=0, count=2, shares=2)
    model = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu", processes=processes)
    alone = TensorFlowBackend().build(case.config, case.parameters, "float64", "cpu")
    window = case.tokens, case.targets, case.state, case.masks
    for number in range(1, 4):
        losses: list[Any] = [m.train_step(*window, 0.5, 0.01, 0.7)[0] for m in (model, alone)]
        assert sent == [1 + model.parameter_count] * number
        # XLA may compile the two differently. Measured: no difference here, 2e-16 after ten steps.
        np.testing.assert_allclose(*losses, rtol=1e-15)
    for name, value in alone.parameters().items():
        assert relative_error(model.parameters()[name], value) < 1e-14  # measured: 2e-17; 2e-16 after ten steps
    sent.clear()
    model.evaluate_step(*window)
    model.log_likelihoods(*window)
    model.forward(case.tokens)
    assert sent == []


@pytest.mark.parametrize("array", [np.array([True, False]), np.array(-3), np.array([[-0.0, np.nan, 5e-324]])], ids=str)
def test_what_is_gathered_keeps_every_bit(array: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorFlowProcesses, "_all_reduce", lambda self, tensor: tensor)  # the other one has sent zeros
    other, own = TensorFlowProcesses(rank=1, count=2, shares=2).gather(array)
    assert own.tobytes() == array.tobytes()
    assert not other.any()
    assert (own.shape, own.dtype) == (array.shape, array.dtype)


@pytest.mark.parametrize("text", [None, "{}", tf_config(["localhost:1"], 0)])
def test_one_process_is_alone(text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    assert TensorFlowBackend().join_processes("cpu") == ALONE


def test_several_gpus_for_one_of_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(["localhost:1", "localhost:2"], 0))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0", "GPU:1"])
    with pytest.raises(ValueError, match="CUDA_VISIBLE_DEVICES='2 GPUs' is not accepted: expected one GPU for each of"):
        join_processes(None)


def test_a_collective_that_fails_tells_of_a_lost_process() -> None:
    with pytest.raises(ProcessLostError, match="another process of this run has ended"), lost_processes():
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted")
