"""Products with factors in bf16: all else stays float32, and so close that training does not notice.

What bf16 costs in accuracy is the same on every machine; on one without bf16 instructions it is only slow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from cases import make_case
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import rhn
from rhn_torch import RHN, fast_kernels, fast_recurrence, plain_recurrence, precision
from rhn_torch.backend import TorchBackend
from rhn_torch.loss import softmax_cross_entropy

T, B, H = 6, 4, 16

bf16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


def error(actual: Tensor, expected: Tensor) -> float:
    """Relative, in norm."""
    assert actual.dtype == expected.dtype == torch.float32
    assert actual.isfinite().all()
    return float((actual.detach() - expected.detach()).norm() / expected.detach().norm())


def differentiate(function: Callable[..., Tensor], *arguments: Tensor) -> list[Tensor]:
    """Outputs, and gradients of a random linear function of them."""
    outputs = function(*arguments)
    cotangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0))
    return [outputs, *torch.autograd.grad(outputs, arguments, cotangent)]


def under_autocast(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*arguments: Tensor) -> Tensor:
        with bf16():
            return function(*arguments)

    return call


def random(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (scale * torch.randn(shape, generator=generator)).requires_grad_()


def layer_and_arguments(num_gates: int, num_masks: int, depth: int) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A function (recurrence, projected, state, biases, *weights), and all but its first argument."""
    mask = (torch.rand(num_masks, B, H, generator=torch.Generator().manual_seed(1)) < 0.7) / 0.7 if num_masks else None
    arguments = [
        random(T, B, num_gates * H),
        random(B, H),
        random(depth, num_gates * H),
        *(random(num_gates * H, H, scale=0.9 / H**0.5, seed=level) for level in range(depth)),
    ]

    def run(recurrence, projected, state, biases, *weights):
        return recurrence(projected, state, weights, biases, mask)

    return run, arguments


GRID = list(itertools.product((2, 3), ("none", "shared", "separate"), (1, 3)))


@pytest.mark.parametrize(("num_gates", "masks", "depth"), GRID)
def test_recurrence(num_gates, masks, depth):
    """Measured over the grid, largest error of any tensor: of fast 0.0053; of plain against fast 0.0047, since autograd
    adds up a weight's gradient in bf16; of recompute against fast 9e-8 (a factor may round the other way)."""
    run, arguments = layer_and_arguments(num_gates, {"none": 0, "shared": 1, "separate": num_gates}[masks], depth)
    exact = differentiate(partial(run, fast_recurrence), *arguments)
    fast = differentiate(under_autocast(partial(run, fast_recurrence)), *arguments)
    plain = differentiate(under_autocast(partial(run, plain_recurrence)), *arguments)
    recompute = differentiate(under_autocast(partial(run, partial(fast_recurrence, recompute=True))), *arguments)
    assert max(map(error, fast, exact)) < 0.01
    assert max(map(error, plain, fast)) < 0.01
    assert max(map(error, recompute, fast)) < 1e-4
    with bf16():
        both_inside = differentiate(partial(run, fast_recurrence), *arguments)
    assert all(torch.equal(one, other) for one, other in zip(both_inside, fast, strict=True))


def test_gradients_of_slices_of_time_add_up(monkeypatch):
    run, arguments = layer_and_arguments(2, 1, 2)
    whole = differentiate(under_autocast(partial(run, fast_recurrence)), *arguments)
    monkeypatch.setattr(fast_kernels, "_BACKWARD_ROWS", 5)
    slices = differentiate(under_autocast(partial(run, fast_recurrence)), *arguments)
    assert max(map(error, slices, whole)) < 0.01  # measured: 0.0023


def test_without_gradients():
    run, arguments = layer_and_arguments(3, 3, 3)
    with bf16():
        kept = run(fast_recurrence, *arguments)
        with torch.no_grad():
            scratch = run(fast_recurrence, *arguments)
    assert torch.equal(kept, scratch)


def test_loss():
    """Largest error measured: 0.0062."""
    arguments = random(30, H), random(50, H), random(50)
    targets = torch.arange(30)

    def loss(top, weight, bias):
        return 0.3 * softmax_cross_entropy(top, weight, bias, targets)

    exact, rounded = differentiate(loss, *arguments), differentiate(under_autocast(loss), *arguments)
    assert max(map(error, rounded, exact)) < 0.01
    assert not torch.equal(rounded[0], exact[0])
    framework = F.cross_entropy(
        F.linear(arguments[0].bfloat16(), arguments[1].bfloat16()).float() + arguments[2], targets
    )
    assert error(rounded[0], 0.3 * 30 * framework) < 1e-6


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
def test_layers_among_others(recurrence):
    """Input and first state come from other layers' products, in bf16, as autocast leaves them."""
    layer = RHN(5, H, 2, num_layers=2, recurrence=recurrence)
    masks = rhn.VariationalMasks(input=[np.ones((1, B, 5)), np.ones((2, B, H))], state=[np.ones((1, B, H))] * 2)
    with bf16():
        x, h_0 = F.linear(random(T, B, 3), random(5, 3)), F.linear(random(2, B, 3), random(H, 3))
        assert x.dtype == h_0.dtype == torch.bfloat16
        results = [*layer(x, h_0, masks), *layer(x, None), layer.cells[0](x[0], h_0[0])]
    assert all(result.dtype == torch.float32 for result in results)
    sum(result.sum() for result in results).backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in layer.parameters())


def test_float64_is_not_rounded():
    layer, x = RHN(5, H, 2, dtype=torch.float64), random(T, B, 5).double()
    with bf16():
        output, _ = layer(x)
    assert torch.equal(output, layer(x)[0])


class SumsInFloat32(TorchDispatchMode):
    """Products with `out_dtype`, which only a GPU has: of the factors as they are, summed in float32."""

    products = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not function.name().endswith(".dtype_out"):
            return function(*args, **(kwargs or {}))
        self.products += 1
        a, b, dtype = args
        assert (a.dtype, b.dtype, dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        return function.overloadpacket(a.float(), b.float(), **kwargs)


@pytest.mark.parametrize(("num_gates", "num_masks"), [(2, 0), (3, 3)])
def test_products_of_a_gpu_are_not_rounded_after_they_are_summed(monkeypatch, num_gates, num_masks):
    """By a stand-in for its products; slices of time add up. Measured: 2e-7, where a product that is rounded is off by
    3e-3."""
    monkeypatch.setattr(precision, "_keeps_sums", lambda factor, out: factor.dtype != out.dtype)
    monkeypatch.setattr(fast_kernels, "_BACKWARD_ROWS", 5)
    run, arguments = layer_and_arguments(num_gates, num_masks, depth=2)
    recurrence = under_autocast(partial(run, fast_recurrence))
    with SumsInFloat32() as mode:
        summed = differentiate(recurrence, *arguments)
    assert mode.products == 2 * T * 2 + 2 * 3  # forward and backward; the gradients of 2 weights in 3 slices of time
    monkeypatch.setattr(precision, "product", lambda a, b, *, out: torch.matmul(a.float(), b.float(), out=out))
    monkeypatch.setattr(fast_kernels, "product", precision.product)
    expected = differentiate(recurrence, *arguments)
    assert max(map(error, summed, expected)) < 1e-6


def test_loss_of_a_gpu(monkeypatch):
    monkeypatch.setattr(precision, "_keeps_sums", lambda factor, out: factor.dtype != out.dtype)
    arguments, targets = (random(30, H), random(50, H), random(50)), torch.arange(30)
    loss = under_autocast(lambda *inputs: softmax_cross_entropy(*inputs, targets))
    with SumsInFloat32() as mode:
        results = differentiate(loss, *arguments)
    assert mode.products == 3
    with bf16():
        factors = [factor.bfloat16().float() for factor in arguments[:2]]
    exact = F.cross_entropy(F.linear(*factors, arguments[2]), targets, reduction="sum")
    assert error(results[0], exact) < 1e-6


def test_products_that_torch_has_for_a_gpu():
    """Their signatures, which need none; and what the switch of torch for sums in parts is set to."""
    with FakeTensorMode():
        for batch in ((2,), ()):
            a, b = (torch.empty(*batch, *shape, dtype=torch.bfloat16, device="cuda") for shape in ((3, 4), (4, 5)))
            out = torch.empty(*batch, 3, 5, device="cuda")
            assert precision.product(a, b, out=out) is out
            assert precision.add_product(torch.empty(5, device="cuda"), a, b, out=out) is out
    before = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    with precision.Precision("float32", torch.device("cpu")).products():
        assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction == before


# ----------------------------------------------------------------------------------------------------------------------
# The backend
# ----------------------------------------------------------------------------------------------------------------------


def build(case, **options):
    return TorchBackend().build(case.config, case.parameters, device="cpu", **options)


@pytest.fixture
def bf16_cpu(monkeypatch):
    """A CPU that multiplies bf16, even if slowly."""
    monkeypatch.setattr(precision, "has_bf16_products", lambda device: True)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "couple_gates": False, "masks": "separate"}], ids=str)
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_a_model(bf16_cpu, options, recompute):
    """Largest error measured: 0.0060."""
    case = make_case(hidden_size=H, length=T, **options)
    window = case.tokens, case.targets, case.state, case.masks
    exact, rounded = (
        build(case, precision=name, recompute=recompute).gradients(*window) for name in ("float32", "bf16")
    )
    assert rounded[0] != exact[0]
    errors = {name: error(*map(torch.from_numpy, (rounded[1][name], exact[1][name]))) for name in exact[1]}
    assert {name: value for name, value in errors.items() if not value < 0.01} == {}


def test_results_stay_float32(bf16_cpu):
    case = make_case()
    model = build(case, precision="bf16")
    logits, state = model.forward(case.tokens, case.state, case.masks)
    assert {logits.dtype, *(s.dtype for s in state)} == {np.dtype("float32")}
    loss, new_state = model.train_step(case.tokens, case.targets, case.state, case.masks, 0.1, 0.0, 10.0)
    nll, _ = model.evaluate_step(case.tokens, case.targets, new_state)
    scores, _ = model.log_likelihoods(case.tokens, case.targets, new_state)
    assert {tensor.dtype for tensor in (loss, nll, scores, *new_state)} == {torch.float32}
    assert {value.dtype for value in model.parameters().values()} == {np.dtype("float32")}


def test_training_does_not_notice(bf16_cpu):
    """Measured: 0.2 %, and 0.3 % at the most over four initial values. Some dozen steps later the text is known by
    heart, and the loss falls so fast that any difference grows: runs are to be compared before."""
    text = np.frombuffer(b"the quick brown fox jumps over the lazy dog. " * 20, np.uint8) % 32
    streams = text[:900].reshape(5, 180)
    config = rhn.RHNConfig(vocab_size=32, hidden_size=16, recurrence_depth=2)
    parameters = rhn.initial_parameters(config, seed=1, init_scale=0.2, transform_bias=-1.0)
    final_losses = []
    for name in ("float32", "bf16"):
        model = TorchBackend().build(config, parameters, "float32", "cpu", rhn.Optimizer("adam"), name)
        state, losses = model.zero_state(5), []
        for step in range(100):
            start = 10 * (step % 17)
            window = streams[:, start : start + 11]
            loss, state = model.train_step(window[:, :-1], window[:, 1:], state, None, 0.01, 0.0, 10.0)
            losses.append(float(loss))
        assert losses[-1] < 0.5 * losses[0]
        final_losses.append(np.mean(losses[-10:]))
    assert final_losses[1] == pytest.approx(final_losses[0], rel=0.01)


@pytest.mark.parametrize("name", ["tf32", "bf16"])
def test_a_permission_that_the_device_has_no_use_for_changes_nothing(monkeypatch, name):
    monkeypatch.setattr(precision, "has_bf16_products", lambda device: False)
    case = make_case()
    models = [build(case, precision=other) for other in ("float32", name)]
    strict, permitted = (model.forward(case.tokens, case.state, case.masks)[0] for model in models)
    assert np.array_equal(strict, permitted)


def test_a_strict_model_is_strict_under_autocast():
    case = make_case()
    model = build(case)
    expected = model.forward(case.tokens)[0]
    with bf16():
        assert np.array_equal(model.forward(case.tokens)[0], expected)


@pytest.mark.parametrize(("name", "setting"), [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_setting_of_a_gpu_is_for_the_model_only(monkeypatch, name, setting):
    """The setting can be made without a GPU; whether a GPU follows it cannot be seen here."""
    monkeypatch.setattr(precision, "has_bf16_products", lambda device: False)
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    with precision.Precision(name, torch.device("cuda")).products():
        assert settings.fp32_precision == setting
    assert settings.fp32_precision == before
