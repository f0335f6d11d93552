"""What a window costs, counted and not timed: operations, memory, waiting. No machine's noise can trip these tests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from cases import make_case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import rhn
from rhn_torch import fast_recurrence
from rhn_torch.backend import TorchBackend, TorchModel
from rhn_torch.precision import Precision

DEPTH, GATES, BATCH_SIZE, HIDDEN = 4, 2, 2, 5
WIDTH = GATES * HIDDEN


class Operations(TorchDispatchMode):
    """Names and result shapes of operations that are neither views nor allocations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not (function.is_view or "empty" in function.name()):
            shape = tuple(result.shape) if isinstance(result, Tensor) else ()
            self.seen.append((function.name(), shape))
        return result


def window(length: int, num_masks: int | None) -> tuple[Tensor, Tensor, list[Tensor], Tensor, Tensor | None]:
    """Arguments of `fast_recurrence`."""
    return (
        torch.randn(length, BATCH_SIZE, WIDTH, requires_grad=True),
        torch.randn(BATCH_SIZE, HIDDEN),
        [torch.randn(WIDTH, HIDDEN, requires_grad=True) for _ in range(DEPTH)],
        torch.randn(DEPTH, WIDTH, requires_grad=True),
        None if num_masks is None else torch.ones(num_masks, BATCH_SIZE, HIDDEN),
    )


def operations(length: int, num_masks: int | None, **options: Any) -> tuple[Operations, Operations]:
    """Of the forward and of the backward."""
    arguments = window(length, num_masks)
    with Operations() as forward:
        outputs = fast_recurrence(*arguments, **options)
    with Operations() as backward:
        outputs.backward(torch.ones_like(outputs))
    return forward, backward


# Forward: mask, product, tanh, sigmoid, lerp. Backward: factors, carry, product, and one sum per gate, with its mask.
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("num_masks", "forward", "backward"), [(None, 4, 5), (1, 5, 5), (2, 5, 5)])
def test_operations_of_a_micro_step(num_masks, forward, backward, recompute):
    """Every operation more costs small models several percent."""
    two, three = (operations(length, num_masks, recompute=recompute) for length in (2, 3))
    of_a_time_step = [len(long.seen) - len(short.seen) for short, long in zip(two, three, strict=True)]
    assert of_a_time_step == [DEPTH * forward, DEPTH * backward + 1]  # the one: gradient of the time step's output


@pytest.mark.parametrize("recompute", [False, True])
def test_an_update_mask_costs_one_operation_per_micro_step_and_two_in_bulk(recompute):
    without, with_mask = (
        operations(3, 1, recompute=recompute, update_mask=mask) for mask in (None, torch.ones(BATCH_SIZE, HIDDEN))
    )
    more = [len(on.seen) - len(off.seen) for off, on in zip(without, with_mask, strict=True)]
    assert more == [3 * DEPTH, 2 * DEPTH]


@pytest.mark.parametrize("recompute", [False, True])
def test_one_product_per_micro_step_gives_the_gradient_of_its_weight(recompute):
    _, backward = operations(7, 1, recompute=recompute)
    products = [name for name, shape in backward.seen if "mm" in name and shape == (GATES, HIDDEN, HIDDEN)]
    assert len(products) == DEPTH


def test_one_product_per_micro_step_recomputes_its_gates():
    rows = 7 * BATCH_SIZE
    _, backward = operations(7, 1, recompute=True)
    assert sum("mm" in name and shape == (GATES, rows, HIDDEN) for name, shape in backward.seen) == DEPTH


def kept_for_backward(function: Callable[[], Tensor]) -> int:
    """Elements of the float32 storages that `function` saves for its backward."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(kept.values())


@pytest.mark.parametrize("length", [1, 6])
def test_memory_of_a_window(length):
    """The states of all micro-steps, and all gates, or with `recompute` the input's part of them instead."""
    arguments = window(length, 1)
    states = length * BATCH_SIZE * DEPTH * HIDDEN
    gates, projected = length * BATCH_SIZE * DEPTH * WIDTH, length * BATCH_SIZE * WIDTH
    given = DEPTH * WIDTH * HIDDEN + 2 * BATCH_SIZE * HIDDEN  # weights, initial state, mask: kept, but not copied
    biases = DEPTH * WIDTH  # given as well
    assert kept_for_backward(lambda: fast_recurrence(*arguments)) == states + gates + given
    kept = kept_for_backward(lambda: fast_recurrence(*arguments, recompute=True))
    assert kept == states + projected + given + biases


VOCAB_SIZE = 97


def test_the_tied_embedding_has_one_dense_gradient():
    """The only matrices of its size: the softmax's gradient, to which the embedding's is added, row by row.

    The sum is in place, but for a mode that watches, such as the one here."""
    case = make_case(vocab_size=VOCAB_SIZE)
    model = TorchBackend().build(case.config, case.parameters, "float32", "cpu")
    inputs = model._window(case.tokens, case.targets, case.state, case.masks)
    with Operations() as watched:
        model._gradients(inputs, weight_decay=0.0)
    names = [name for name, shape in watched.seen if shape == (VOCAB_SIZE, case.config.hidden_size)]
    assert names == ["aten::mm.out", "aten::_sparse_coo_tensor_with_dims_and_tensors", "aten::add.Tensor"]


BEYOND = {"embedding_size": 4, "drop_update": 0.4, "time_masks": True, "reset_probability": 0.5}


@pytest.mark.parametrize("options", [{}, {"tie_weights": False, "num_layers": 2}, BEYOND], ids=str)
@pytest.mark.parametrize("optimizer", [rhn.Optimizer(), rhn.Optimizer("adam")], ids=lambda optimizer: optimizer.name)
@pytest.mark.parametrize("static_steps", [False, True])
def test_nothing_waits_for_the_device(monkeypatch, options, optimizer, static_steps):
    """Tensors of the device "meta" have no values: whoever wants to see one gets an exception."""
    monkeypatch.setattr(Precision, "products", lambda self: nullcontext())  # not known to autocast
    case = make_case(**options)
    model = TorchModel(
        case.config,
        case.parameters,
        torch.float32,
        optimizer,
        Precision("float32", torch.device("meta")),
        recurrence="fast",
        static_steps=static_steps,
    )
    state = model.zero_state(len(case.tokens))
    for _ in range(2):
        loss, state = model.train_step(case.tokens, case.targets, state, case.masks, 0.1, 1e-3, 10.0)
    nll, state = model.evaluate_step(case.tokens, case.targets, state)
    assert {tensor.device.type for tensor in (loss, model.last_grad_norm, nll, *state)} == {"meta"}
    with pytest.raises(NotImplementedError):
        model.to_numpy(loss)


def test_windows_of_all_lengths_are_one_static_step():
    case = make_case()
    model = TorchBackend(static_steps=True).build(case.config, case.parameters, "float32", "cpu")
    for length in (3, 2, 1):
        model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0, length=length)
    assert len(model._static_steps._steps) == 1


def test_a_score_makes_the_logits_of_a_few_rows_at_once(monkeypatch):
    case = make_case(vocab_size=VOCAB_SIZE, tie_weights=False)
    model = TorchBackend().build(case.config, case.parameters, "float64", "cpu")
    arguments = case.tokens, case.targets, case.state, case.masks
    logits, _ = model.forward(case.tokens, case.state, case.masks)
    whole = torch.from_numpy(logits).log_softmax(dim=-1).gather(-1, torch.from_numpy(case.targets)[..., None])[..., 0]
    with Operations() as plain:
        scores, _ = model.log_likelihoods(*arguments)
    assert sum(shape[-1:] == (VOCAB_SIZE,) for _, shape in plain.seen) == 1  # the logits, all at once
    monkeypatch.setattr("rhn.port_tools.MOST_LOGITS", 4 * VOCAB_SIZE)
    with Operations() as watched:
        chunked, _ = model.log_likelihoods(*arguments)
        nll, _ = model.evaluate_step(*arguments)
    assert max(shape[0] for _, shape in watched.seen if shape[-1:] == (VOCAB_SIZE,)) == 4 < case.tokens.size
    for found, expected in ((scores, whole), (chunked, whole), (nll, -whole.sum())):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)  # measured: 2.3e-16
