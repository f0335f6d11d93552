"""RHN compiled, traced and exported."""

from __future__ import annotations

import pytest
import torch
from layers_torch import EXACT, B, E, H, T, X, make_layer, random
from torch import Tensor, nn

import rhn
from rhn_torch import RHN, RHNCell


class Classifier(nn.Module):
    """A layer in a model of somebody's, which changes the layer's output in place."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.layer = make_layer(batch_first=True, **options)
        self.readout = nn.Linear(self.layer.config.output_size, 3, dtype=torch.float64)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        output, _ = self.layer(x, lengths=lengths)
        return self.readout(torch.relu_(output))


LAYERS = [{}, {"num_layers": 2, "bidirectional": True, "couple_gates": False}, {"reverse": True}, {"bias": False}]

COMPILED = [(options, False) for options in [*LAYERS, {"recurrence": "recompute"}]] + [(LAYERS[1], True)]


@pytest.mark.parametrize(("options", "with_lengths"), COMPILED, ids=str)
def test_compiled_models(options, with_lengths):
    """The recurrence is one operation for the compiler: two programs serve all lengths, the first and one for any."""
    torch._dynamo.reset()
    model = Classifier(**options)
    programs = []

    def backend(program, inputs):
        programs.append(len(program.graph.nodes))
        return torch._dynamo.lookup_backend("aot_eager")(program, inputs)

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for length in (35, 20, 21, 50):
        x = random(B, length, E).requires_grad_()
        arguments = (x, torch.tensor([length, 2, 7])) if with_lengths else (x,)
        results = []
        for function in (model, compiled):
            output = function(*arguments)
            results.append([output, *torch.autograd.grad(output.square().sum(), [x, *model.parameters()])])
        for expected, actual in zip(*results, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert len(programs) <= 2
    assert max(programs) < 150
    torch._dynamo.reset()


def test_compiled_without_gradients():
    torch._dynamo.reset()
    layer = make_layer(drop_input=0.5).eval()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(X)[0], layer(X)[0])
    torch._dynamo.reset()


@pytest.mark.parametrize("recurrence", ["fast", "recompute"])
def test_compiled_with_an_update_mask(recurrence):
    torch._dynamo.reset()
    layer = make_layer(recurrence=recurrence)
    masks = rhn.VariationalMasks(update=[torch.randint(0, 2, (B, H), generator=torch.Generator().manual_seed(1)) * 2.0])
    results = []
    for function in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        output, _ = function(X, masks=masks)
        results.append([output, *torch.autograd.grad(output.square().sum(), list(layer.parameters()))])
    assert not torch.equal(results[0][0], layer(X)[0])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **EXACT)
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("grad", [False, True])
def test_traced_models(options, grad):
    model = Classifier(**options)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, (random(B, T, E),))
        x = random(B + 1, T, E)
        torch.testing.assert_close(traced(x), model(x), **EXACT)
        other = f"input of {T + 1} time steps is not accepted by a program traced with {T}: trace it with yours"
        with pytest.raises(torch.jit.Error, match=other):
            traced(random(B, T + 1, E))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("make", [lambda: RHNCell(E, H), lambda: RHN(E, H), lambda: nn.ModuleList([RHN(E, H)])])
def test_scripting_is_refused(make):
    with pytest.raises(
        NotImplementedError, match=r"torch\.jit\.script is not supported by RHN(Cell)?: use torch\.compile"
    ):
        torch.jit.script(make())


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_exported_for_any_batch_and_time(options):
    model = Classifier(**options).eval()
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    shapes = {"x": {0: batch, 1: time}, "lengths": {0: batch}}
    program = torch.export.export(model, (random(B, T, E), torch.tensor([2, 4, 1])), dynamic_shapes=shapes).module()
    x, lengths = random(2, 9, E), torch.tensor([9, 0])
    torch.testing.assert_close(program(x, lengths), model(x, lengths), **EXACT)


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_onnx(tmp_path, options, dynamo):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = Classifier(**options).float().eval()
    path, x = str(tmp_path / "model.onnx"), random(B, T, E).float()
    if dynamo:
        shapes = {"x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}}
        torch.onnx.export(model, (x,), path, dynamo=True, input_names=["x"], dynamic_shapes=shapes, verbose=False)
        x = random(B + 1, T + 3, E).float()
    else:
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
        x = random(B + 1, T, E).float()
    (output,) = runtime.InferenceSession(path).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(output), model(x), rtol=0, atol=1e-5)
