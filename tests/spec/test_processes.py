"""Processes that train together: who has which rows; and the reference, which computes as several do."""

import re

import numpy as np
import pytest
from cases import make_case

from rhn.processes import ALONE, Processes, check_alone, join_processes, launched_processes
from rhn.reference_backend import ReferenceBackend
from rhn.spec import reference


def test_a_process_alone_has_all_rows() -> None:
    assert ALONE.is_first
    assert ALONE.rows(20) == slice(0, 20)
    assert ALONE.agree(0.1) == 0.1
    rows = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(ALONE.gather_rows(rows), rows, strict=True)


def test_shares_are_equal_and_cover_the_batch() -> None:
    rows = [Processes(rank, count=4, shares=8).rows(16) for rank in range(4)]
    assert [number for own in rows for number in range(16)[own]] == list(range(16))


@pytest.mark.parametrize(("processes", "who"), [(Processes(0, 2, 2), "2 processes"), (Processes(0, 2, 8), "8 devices")])
def test_a_batch_that_cannot_be_shared_is_refused(processes: Processes, who: str) -> None:
    wanted = f"batch_size=5 is not accepted: expected a multiple of {processes.shares}, because {who} share it"
    with pytest.raises(ValueError, match=wanted):
        processes.rows(5)


def test_the_reference_trains_in_one_process() -> None:
    case = make_case()
    assert join_processes(ReferenceBackend()) == ALONE
    with pytest.raises(ValueError, match="several processes are not accepted: the reference runs in one process"):
        ReferenceBackend().build(case.config, case.parameters, processes=Processes(0, 2, 2))


TWO_WORKERS = '{"cluster": {"chief": ["a:1"], "worker": {"0": "a:2"}}, "task": {"type": "chief", "index": 0}}'
LAUNCHED = [
    ("torch", "WORLD_SIZE", "2"),
    ("jax", "JAX_NUM_PROCESSES", "2"),
    ("jax", "SLURM_STEP_NUM_TASKS", "2"),
    ("jax", "OMPI_COMM_WORLD_SIZE", "2"),
    ("tf", "TF_CONFIG", TWO_WORKERS),
]


@pytest.mark.parametrize(("backend", "variable", "text"), LAUNCHED)
def test_a_launcher_is_asked_by_its_own_backend_only(
    backend: str, variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    for other in ("reference", "torch", "jax", "tf"):
        assert launched_processes(other) == (2 if other == backend else 1)
        if other != backend:
            check_alone(other, "evaluate")
    wanted = (
        f"evaluate runs in one process, but {variable} says that 2 work together: start it without the launcher, or"
        f" unset {variable}"
    )
    with pytest.raises(ValueError, match=wanted):
        check_alone(backend, "evaluate")


@pytest.mark.parametrize(
    ("backend", "variable", "text"),
    [("torch", "WORLD_SIZE", "1"), ("jax", "JAX_NUM_PROCESSES", ""), ("tf", "TF_CONFIG", "{}")],
)
def test_one_process_is_alone(backend: str, variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, text)
    assert launched_processes(backend) == 1


@pytest.mark.parametrize(
    ("backend", "variable", "text", "expected"),
    [
        ("torch", "WORLD_SIZE", "two", "a number of processes"),
        *(
            ("tf", "TF_CONFIG", text, "the addresses of all processes as JSON")
            for text in ("{", "[]", '{"cluster": 2}')
        ),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    backend: str, variable: str, text: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=re.escape(f"{variable}={text!r} is not accepted: expected {expected}")):
        launched_processes(backend)


@pytest.mark.parametrize("masks", ["shared", "separate", "none"])
def test_gradients_of_processes_are_those_of_the_batch(masks: str) -> None:
    case = make_case(batch_size=6, masks=masks, num_layers=2)
    window = case.config, case.parameters, case.tokens, case.targets, case.state, case.masks, 0.1
    loss, grads, state = reference.gradients(*window)
    for count in (2, 3, 6):
        loss_of, grads_of, state_of = reference.gradients_of_processes(count, *window)
        assert loss_of == pytest.approx(loss, rel=1e-14)
        for name, value in grads.items():
            np.testing.assert_allclose(grads_of[name], value, rtol=0, atol=1e-13 * np.abs(value).max())
        np.testing.assert_allclose(state_of, state, rtol=0, atol=1e-15)
