"""Layers with lengths, directions and masks against SPEC.md section 7, and what nothing may depend on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from cases import relative_error

import rhn
from rhn.spec.layers import LayerConfig, layer_parameter_shapes
from rhn_torch import RHN
from rhn_torch.backend import TorchBackend

TOLERANCE = {"float64": 1e-10, "float32": 2e-5}  # of every port
B, T = 4, 5
LENGTHS = {"full": None, "mixed": [3, 5, 0, 1]}
GRID = list(itertools.product(("forward", "reverse", "both"), LENGTHS, (False, True)))


def draw(config: LayerConfig, seed: int = 0, num_masks: int | None = None) -> dict:
    """Everything that goes into a layer and its gradients."""
    generator = np.random.default_rng(seed)
    widths = [cell.input_size for cell in config.cells()]
    shapes = layer_parameter_shapes(config)
    masks = None
    if num_masks:
        masks = rhn.VariationalMasks(
            input=[generator.integers(0, 2, (num_masks, B, width)) * 2.0 for width in widths],
            state=[generator.integers(0, 2, (num_masks, B, config.hidden_size)) * 2.0 for _ in widths],
        )
    return {
        "parameters": {name: 0.7 * generator.standard_normal(shape) for name, shape in shapes.items()},
        "x": generator.standard_normal((B, T, config.input_size)),
        "state": [generator.standard_normal((B, config.hidden_size)) for _ in widths],
        "masks": masks,
        "d_outputs": generator.standard_normal((B, T, config.output_size)),
        "d_state": [generator.standard_normal((B, config.hidden_size)) for _ in widths],
    }


def results(backend: str, config: LayerConfig, case: dict, lengths: list[int] | None, dtype: str) -> dict:
    layer = rhn.load_backend(backend).build_layer(config, case["parameters"], dtype, "cpu")
    rest = case["state"], lengths, case["masks"]
    outputs, last = layer.forward(case["x"], *rest)
    gradients, d_x, d_state = layer.gradients(case["x"], case["d_outputs"], case["d_state"], *rest)
    return {"outputs": outputs, "last": np.stack(last), "d_x": d_x, "d_state": np.stack(d_state), **gradients}


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("directions", "lengths", "couple_gates"), GRID)
def test_layers_match_the_reference(directions, lengths, couple_gates, dtype):
    config = LayerConfig(3, 4, 2, 2, directions, couple_gates, share_gate_masks=not couple_gates)
    case = draw(config, num_masks=config.num_gate_masks)
    actual, expected = (results(name, config, case, LENGTHS[lengths], dtype) for name in ("torch", "reference"))
    assert actual.keys() == expected.keys()
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
def test_nothing_depends_on_the_padding(recurrence, options):
    """Not even if it is infinite, and there is more of it."""
    torch.manual_seed(0)
    lengths = torch.tensor(LENGTHS["mixed"])
    layer = RHN(3, 4, 2, 2, recurrence=recurrence, **options)
    x = torch.randn(T, B, 3)
    padded = torch.cat((x, x))
    padded[torch.arange(2 * T).unsqueeze(1) >= lengths] = float("nan")
    found = []
    for sequence in (x, padded):
        sequence.requires_grad_()
        output, h_n = layer(sequence, lengths=lengths)
        loss = output.square().sum() + h_n.square().sum()
        d_x, *gradients = torch.autograd.grad(loss, [sequence, *layer.parameters()])
        assert not output[T:].any()
        assert not d_x[torch.arange(len(sequence)).unsqueeze(1) >= lengths].any()
        found.append([output[:T], h_n, d_x[:T], *gradients])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
def test_rows_are_computed_as_if_alone(options):
    torch.manual_seed(0)
    layer = RHN(3, 4, 2, 2, batch_first=True, dtype=torch.float64, init_scale=0.8, **options)
    x = torch.randn(B, T, 3, dtype=torch.float64)
    output, h_n = layer(x, lengths=LENGTHS["mixed"])
    for row, length in enumerate(LENGTHS["mixed"]):
        assert not output[row, length:].any()
        if length == 0:
            assert not h_n[:, row].any()
            continue
        alone, last = layer(x[row, :length])
        torch.testing.assert_close(output[row, :length], alone, rtol=0, atol=1e-14)
        torch.testing.assert_close(h_n[:, row], last, rtol=0, atol=1e-14)


def test_is_found_by_the_protocol():
    backend = rhn.load_backend("torch")
    assert isinstance(backend, rhn.backend.LayerBackend)
    config = LayerConfig(3, 4)
    parameters = draw(config)["parameters"]
    exported = backend.build_layer(config, parameters, "float64").parameters()
    assert all(np.array_equal(exported[name], value) for name, value in parameters.items())
    with pytest.raises(ValueError, match="dtype='float16' is not accepted"):
        TorchBackend().build_layer(config, parameters, "float16")
    with pytest.raises(ValueError, match=r"missing layers\.0\.bias"):
        backend.build_layer(config, {k: v for k, v in parameters.items() if not k.endswith("bias")})
