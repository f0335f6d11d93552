"""Several devices and processes train one model; that they compute what one does, the suite says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from cases import make_case, relative_error
from jax.errors import JaxRuntimeError
from two_processes import Process, check_killed_as_two_resumed_by_one, free_address, start_each

from rhn.processes import ProcessLostError
from rhn_jax.backend import JaxBackend, programs
from rhn_jax.backend.processes import JaxProcesses, lost_processes


def start_two(words: Sequence[str]) -> tuple[Callable[[], object], Process]:
    together = {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2"}
    return start_each("jax", words, [{**together, "JAX_PROCESS_ID": str(rank)} for rank in range(2)])


def test_begun_by_one_killed_as_two_resumed_by_one_ends_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two notice it: the collective operation, of which we tell, and JAX's coordination service. On a busy machine the
    # service may be first. It then ends the process itself, with its own words.
    service = "This most likely indicates that another task died"
    assert check_killed_as_two_resumed_by_one("jax", start_two, tmp_path, monkeypatch, instead=service) != 0


def test_a_mesh_trains_as_a_device_does_and_sends_once_a_step() -> None:
    """The mesh has one device: how a step is put together does not depend on their number."""
    case = make_case()
    processes = JaxBackend().join_processes("all")
    assert isinstance(processes, JaxProcesses)
    assert (processes.rank, processes.count, processes.shares) == (0, 1, jax.local_device_count())
    model = JaxBackend().build(case.config, case.parameters, "float64", "cpu", processes=processes)
    alone = JaxBackend().build(case.config, case.parameters, "float64", "cpu")
    states = [case.state, case.state]
    for _ in range(2):
        for number, each in enumerate((model, alone)):
            window = case.tokens, case.targets, states[number], case.masks
            _, states[number] = each.train_step(*window, 0.5, 0.01, 0.7)
    # XLA may compile the two differently. Measured: weights 2e-16, states 0; 1e-16 after three steps.
    for name, value in alone.parameters().items():
        assert relative_error(model.parameters()[name], value) < 1e-14
    np.testing.assert_allclose(model.to_numpy(states[0][0]), alone.to_numpy(states[1][0]), rtol=0, atol=1e-14)

    window = model._training_window(case.tokens, case.targets, case.state, case.masks, None)
    step = jax.make_jaxpr(
        lambda params, window: programs.gradients.__wrapped__(model._graph, params, window, mesh=processes.mesh)
    )(model._params, window)
    assert str(step).count("psum") == 1
    assert not any(name in str(step) for name in ("all_gather", "all_to_all", "ppermute"))


@pytest.mark.parametrize(
    "error", [JaxRuntimeError("UNKNOWN: Gloo all-reduce failed"), ValueError("UNKNOWN: Gloo all-reduce failed")]
)
def test_an_operation_that_fails_together_tells_of_a_lost_process(error: Exception) -> None:
    with pytest.raises(ProcessLostError, match="another process of this run has ended"), lost_processes():
        raise error


@pytest.mark.parametrize("error", [JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), ValueError("other")])
def test_an_error_of_this_process_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), lost_processes():
        raise error


def test_one_process_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case()
    model = JaxBackend().build(
        case.config, case.parameters, "float64", "cpu", processes=JaxBackend().join_processes("all")
    )

    def fail(*arguments: object) -> None:
        raise JaxRuntimeError("INTERNAL: a device has failed")

    monkeypatch.setattr(programs, "gradients", fail)
    with pytest.raises(JaxRuntimeError, match="a device has failed"):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.5, 0.01, 0.7)
