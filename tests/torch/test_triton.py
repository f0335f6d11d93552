"""The Triton kernels against the plain recurrence: in Triton's interpreter where there is no GPU."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from cases import errors_against_reference, make_case
from torch import Tensor

from rhn_torch import RHN, fast_recurrence, plain_recurrence
from rhn_torch.backend import TorchBackend

if find_spec("triton") is None:
    pytest.skip("Triton is not installed: it comes with PyTorch for NVIDIA GPUs", allow_module_level=True)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are defined

from rhn_torch.gpu.triton_recurrence import triton_recurrence

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Relative to the largest entry. Measured in the interpreter: 5.6e-7.
TOLERANCE = 3e-6


def make_inputs(
    hidden: int = 17, batch_size: int = 3, depth: int = 2, mask: str = "shared", num_gates: int = 2, length: int = 2
) -> list:
    """Arguments of a recurrence but for the activation."""
    generator = torch.Generator().manual_seed(hidden + batch_size)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=generator)).to(DEVICE).requires_grad_()

    width = num_gates * hidden
    num_masks = {"none": 0, "shared": 1, "separate": num_gates}[mask]
    keep = (torch.rand(num_masks, batch_size, hidden, generator=generator) < 0.7).float() / 0.7
    return [
        normal(length, batch_size, width),
        normal(batch_size, hidden),
        [normal(width, hidden, scale=hidden**-0.5) for _ in range(depth)],
        normal(depth, width),
        keep.to(DEVICE) if num_masks else None,
    ]


def outputs_and_gradients(recurrence, inputs: list, activation: str = "tanh") -> list[Tensor]:
    """Outputs, and gradients of a random linear function of them."""
    projected, state, weights, biases, _ = inputs
    outputs = recurrence(*inputs, activation)
    cotangent = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    return [outputs, *torch.autograd.grad(outputs, [projected, state, biases, *weights], cotangent)]


def assert_close(actual: list[Tensor], expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=tolerance * e.abs().max().item())


@pytest.mark.parametrize(("hidden", "batch_size", "depth"), list(itertools.product((17, 40), (3, 20), (1, 3))))
def test_equals_plain_in_every_size(hidden, batch_size, depth):
    inputs = make_inputs(hidden, batch_size, depth, mask="separate")
    assert_close(outputs_and_gradients(triton_recurrence, inputs), outputs_and_gradients(plain_recurrence, inputs))


@pytest.mark.parametrize("num_gates", [2, 3])
@pytest.mark.parametrize("mask", ["none", "shared", "separate"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_equals_plain_for_every_kind_of_gate(activation, mask, num_gates):
    inputs = make_inputs(mask=mask, num_gates=num_gates)
    actual, expected = (outputs_and_gradients(r, inputs, activation) for r in (triton_recurrence, plain_recurrence))
    assert_close(actual, expected)


def test_rows_beyond_one_tile():
    inputs = make_inputs(batch_size=65, depth=1)
    assert_close(outputs_and_gradients(triton_recurrence, inputs), outputs_and_gradients(plain_recurrence, inputs))


def test_factors_are_rounded_under_autocast():
    """To float16, which the interpreter computes right, where it does not bfloat16. Measured: 4e-4."""
    inputs = make_inputs()
    exact = outputs_and_gradients(triton_recurrence, inputs)
    with torch.autocast(DEVICE, dtype=torch.float16):
        rounded = outputs_and_gradients(triton_recurrence, inputs)
        expected = outputs_and_gradients(fast_recurrence, inputs)
    assert not torch.equal(rounded[0], exact[0])
    assert all(tensor.dtype == torch.float32 for tensor in rounded)
    assert_close(rounded, expected, tolerance=2e-3)


def test_with_an_update_mask_it_is_the_fast_recurrence():
    inputs = make_inputs()
    update_mask = 2 * (torch.rand(inputs[1].shape, generator=torch.Generator().manual_seed(2)) < 0.5).float().to(DEVICE)
    triton, fast = (
        outputs_and_gradients(partial(recurrence, update_mask=update_mask), inputs)
        for recurrence in (triton_recurrence, fast_recurrence)
    )
    assert all(torch.equal(a, b) for a, b in zip(triton, fast, strict=True))


def test_second_derivative_names_the_way_out():
    inputs = make_inputs()
    with pytest.raises(RuntimeError, match="use plain_recurrence"):
        torch.autograd.grad(triton_recurrence(*inputs).square().sum(), inputs[1], create_graph=True)


def test_what_is_refused():
    projected, state, weights, biases, mask = make_inputs()
    with pytest.raises(ValueError, match="use plain_recurrence"):
        triton_recurrence(projected, state, weights, biases, mask.requires_grad_())
    with pytest.raises(ValueError, match=r"parameters of torch\.float64 are not accepted by triton_recurrence"):
        triton_recurrence(projected, state, weights, biases.double())


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "couple_gates": False, "masks": "separate"}], ids=str)
def test_a_model_matches_the_reference(options):
    """Captured and replayed where there is a GPU. Tolerance as in test_backend.py."""
    case = make_case(length=2, **options)
    model = TorchBackend(recurrence="triton", static_steps=True).build(case.config, case.parameters, device=DEVICE)
    errors = errors_against_reference(model, case)
    assert {name: error for name, error in errors.items() if not error <= 2e-5} == {}


def test_missing_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "rhn_torch.gpu.triton_recurrence")
    monkeypatch.delitem(sys.modules, "rhn_torch.gpu.triton_kernels")
    layer = RHN(2, 3, 1, recurrence="triton")
    with pytest.raises(ImportError, match="recurrence='triton' needs the package triton"):
        layer(torch.zeros(1, 1, 2))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rhn_torch.gpu import triton_kernels as module

def compile(kernel, factor, **constants):
    types = {"batch_size": "i32", "hidden_size": "i32", "weight_ptr": factor}
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    triton.compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32))

tile = {"ACTIVATION": "tanh", "ROWS": 32, "COLUMNS": 16, "SUMMED": 64}
coupled = {"NUM_GATES": 2, "NUM_MASKS": 0, "mask_ptr": None, "PRECISION": "ieee", **tile}
separate = {"NUM_GATES": 3, "NUM_MASKS": 3, "PRECISION": "tf32", **tile}
compile(module.micro_step, "*bf16", IS_FIRST=False, **coupled)
compile(module.micro_step, "*fp32", IS_FIRST=True, **separate)
compile(module.micro_step_backward, "*bf16", ADD_OUTPUT=True, BEGIN=True, **coupled)
absent = dict.fromkeys(("d_output_ptr", "s_ptr", "gates_ptr", "d_gates_ptr"))
compile(module.micro_step_backward, "*fp32", ADD_OUTPUT=False, BEGIN=False, **separate, **absent)
"""


def test_kernels_compile_for_a_hopper_gpu():
    """Which takes no GPU, but a process of its own: in this one they may be interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    subprocess.run([sys.executable, "-c", COMPILE], check=True, env=environment)


def test_triton_is_imported_only_where_it_is_used():
    program = "import sys, rhn_torch, rhn_torch.backend; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "triton" not in loaded
