"""Steps on static buffers, captured and replayed, against plain steps.

Where there is no GPU, "gpu" is left out; "recorded" replays on the CPU by the rules of a CUDA graph.
"""

from __future__ import annotations

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch
from cases import GRID, Case, errors_against_reference, make_case, name_of
from torch.utils._python_dispatch import TorchDispatchMode

import rhn
from rhn_torch.backend import TorchBackend, TorchModel
from rhn_torch.gpu import cuda_graph

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # of every port


class Recording(TorchDispatchMode):
    """Every operation with the very tensors and numbers that it was given, as a CUDA graph keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "_local_scalar_dense" in function.name():
            raise RuntimeError("a captured step must not wait for the device")
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        with torch._C._AutoDispatchBelowAutograd():  # as they were recorded
            for function, args, kwargs, result in self.calls:
                if not function.is_view:
                    again = function(*args, **kwargs)
                    for old, new in zip(_tensors(result), _tensors(again), strict=True):
                        old.copy_(new)


def _tensors(result) -> list[torch.Tensor]:
    return [x for x in (result if isinstance(result, list | tuple) else [result]) if isinstance(x, torch.Tensor)]


class CpuRecorder:
    """In place of `CudaRecorder`."""

    def __init__(self, device: torch.device) -> None:
        pass

    def warm_up(self, function):
        return function()

    def capture(self, function):
        with Recording() as recording:
            results = function()  # on the CPU this computes: it is the first replay
        replays = itertools.chain([lambda: None], itertools.repeat(recording.replay))

        def replay():
            next(replays)()
            return results

        return replay


@pytest.fixture(params=["cpu", "recorded", pytest.param("gpu", marks=needs_gpu)])
def device(request, monkeypatch) -> str:
    if request.param == "recorded":
        monkeypatch.setattr(cuda_graph, "recorder_on", CpuRecorder)
        return "cpu"
    return request.param


def build(case: Case, static_steps: bool, device: str, **options) -> TorchModel:
    return TorchBackend(static_steps=static_steps).build(case.config, case.parameters, device=device, **options)


def build_both(case: Case, device: str, **options) -> tuple[TorchModel, TorchModel]:
    return build(case, True, device, **options), build(case, False, device, **options)


def assert_same_step(models, case: Case, state, learning_rate=0.1, weight_decay=0.01, max_grad_norm=0.7):
    """One step of each from the same state leads to the same bits everywhere; returns the state after it."""
    results = []
    for model in models:
        window = (case.tokens, case.targets, state, case.masks)
        loss, new_state = model.train_step(*window, learning_rate, weight_decay, max_grad_norm)
        numbers = [model.to_numpy(x) for x in (loss, model.last_grad_norm, *new_state)]
        results.append([*numbers, *model.parameters().values(), *model.optimizer_state().values()])
    assert len(results[0]) == len(results[1])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(actual, expected)
    return new_state


@pytest.mark.parametrize(
    "optimizer",
    [
        rhn.Optimizer(),
        rhn.Optimizer(decoupled_weight_decay=True),
        rhn.Optimizer("adam"),
        rhn.Optimizer(momentum=0.8, max_grad_value=0.05),
        rhn.Optimizer("adam", decoupled_weight_decay=True),
    ],
    ids=str,
)
def test_rates_change_from_step_to_step(optimizer, device):
    case = make_case(num_layers=2)
    models = build_both(case, device, optimizer=optimizer)
    state = case.state
    for rate in (0.1, 0.1, 0.05, 0.0, 0.2):
        state = assert_same_step(models, case, state, learning_rate=rate)


def test_windows_of_different_shapes_and_masks_take_turns(device):
    cases = [
        make_case(masks="shared"),
        make_case(masks="none"),
        make_case(length=2, masks="shared"),
        make_case(batch_size=1, masks="shared"),
    ]
    # As many time steps as hidden units: an embedding mask has the shape of an output mask.
    square = make_case(length=6)
    masks = square.masks
    cases += [square._replace(masks=rhn.VariationalMasks(embedding=masks.embedding))]
    cases += [square._replace(masks=rhn.VariationalMasks(output=masks.output))]
    models = build_both(cases[0], device)
    for case in cases * 3:
        assert_same_step(models, case, case.state)


def test_weight_decay_and_norm_change(device):
    case = make_case(masks="separate", couple_gates=False)
    models = build_both(case, device)
    for weight_decay, max_grad_norm in itertools.product((0.0, 0.01), (0.7, 10.0)):
        for _ in range(3):
            assert_same_step(models, case, case.state, 0.1, weight_decay, max_grad_norm)


@pytest.mark.parametrize("optimizer", [rhn.Optimizer(), rhn.Optimizer("adam")], ids=str)
def test_loading_in_between(optimizer, device):
    case = make_case()
    models = build_both(case, device, optimizer=optimizer)
    for _ in range(3):
        assert_same_step(models, case, case.state)
    remembered = models[0].optimizer_state()
    for model in models:
        model.load_parameters(case.parameters)
    for _ in range(3):
        assert_same_step(models, case, case.state)
    for model in models:
        model.load_optimizer_state({**remembered, "averaged_steps": np.array(0)})
    for _ in range(3):
        assert_same_step(models, case, case.state)


def test_evaluation_between_training_steps(device):
    """With the parameters of the moment, in windows of several shapes, with and without masks."""
    case = make_case(num_layers=2)
    others = [case._replace(masks=None), make_case(num_layers=2, length=2), make_case(num_layers=2, batch_size=1)]
    models = build_both(case, device)
    state = case.state
    for turn in range(5):
        state = assert_same_step(models, case, state)
        if turn == 3:
            for model in models:
                model.load_parameters(case.parameters)
        for window in (case, *others):
            results = []
            for model in models:
                nll, new_state = model.evaluate_step(window.tokens, window.targets, window.state, window.masks)
                results.append([model.to_numpy(x) for x in (nll, *new_state)])
            for actual, expected in zip(*results, strict=True):
                np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("options", [{"recompute": True}, {"precision": "tf32"}, {"precision": "bf16"}], ids=str)
def test_options_of_the_protocol(options, device):
    case = make_case()
    models = build_both(case, device, **options)
    for _ in range(3):
        assert_same_step(models, case, case.state)


def test_results_are_not_overwritten_by_the_next_step(device):
    case = make_case()
    model = build(case, True, device)
    step = (case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
    kept = []
    for _ in range(3):
        loss, state = model.train_step(*step)
        results = [loss, model.last_grad_norm, *state]
        kept.append((results, [result.clone() for result in results]))
    assert all(torch.equal(a, b) for results, copies in kept for a, b in zip(results, copies, strict=True))


def test_a_step_that_cannot_be_captured_is_taken_as_it_is(monkeypatch):
    class Refusing(CpuRecorder):
        def capture(self, function):
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(cuda_graph, "recorder_on", Refusing)
    case = make_case()
    models = build_both(case, "cpu")
    state = assert_same_step(models, case, case.state)
    with pytest.warns(UserWarning, match="could not be captured as a CUDA graph: operation not permitted"):
        state = assert_same_step(models, case, state)
    assert_same_step(models, case, state)


def test_a_model_is_freed_when_its_last_name_goes(device):
    """And with it its memory on the GPU, which Python's collector of cycles does not see."""
    case = make_case()
    model = build(case, True, device)
    for _ in range(3):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
        model.evaluate_step(case.tokens, case.targets, case.state)
    watched = weakref.ref(model.module)
    gc.disable()
    try:
        del model
        assert watched() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("options", GRID[::7], ids=name_of)
def test_everything_matches_the_reference(options, device, dtype):
    case = make_case(**options)
    model = TorchBackend(static_steps=True).build(case.config, case.parameters, dtype, device)
    errors = errors_against_reference(model, case)
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]} == {}
