"""RHN in other people's code: what `nn.GRU` takes, hooks, `torch.func`, `torch.compile`, export, checkpoints."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, rnn

import rhn
from rhn_torch import RHN, RHNCell, RHNLanguageModel

T, B, E, H, L = 4, 3, 5, 6, 2
EXACT = {"rtol": 0.0, "atol": 1e-14}


def make_layer(**options) -> RHN:
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "init_scale": 0.8, "transform_bias": -0.5, **options}
    return RHN(E, H, L, **options)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


# ----------------------------------------------------------------------------------------------------------------------
# What nn.GRU takes
# ----------------------------------------------------------------------------------------------------------------------


def test_depth_has_a_default():
    assert RHN(E, H).recurrence_depth == RHNCell(E, H).recurrence_depth == 5


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_shapes_are_those_of_gru(num_layers, batch_first, bidirectional):
    options = {"num_layers": num_layers, "batch_first": batch_first, "bidirectional": bidirectional}
    gru, layer = nn.GRU(E, H, **options), RHN(E, H, L, **options)
    directions = 2 if bidirectional else 1
    batched = torch.zeros(B, T, E) if batch_first else torch.zeros(T, B, E)
    windows = [
        (batched, torch.zeros(num_layers * directions, B, H)),
        (torch.zeros(T, E), torch.zeros(num_layers * directions, H)),
    ]
    for x, h in windows:
        expected = [result.shape for result in gru(x, h)]
        assert [result.shape for result in layer(x, h)] == expected
        assert [result.shape for result in layer(input=x, hx=h)] == expected
        assert [result.shape for result in layer(x=x, h_0=h)] == expected  # their names before version 0.2


@pytest.mark.parametrize("num_layers", [1, 2])
def test_both_directions_are_two_layers_side_by_side(num_layers):
    layer, x = make_layer(num_layers=num_layers, bidirectional=True), random(T, B, E)
    h_0 = random(2 * num_layers, B, H)
    output, h_n = layer(x, h_0)
    below, states = x, []
    for i in range(num_layers):
        forward = torch.stack(list(steps(layer.cells[i], below, h_0[2 * i])))
        reverse = torch.stack(list(steps(layer.reverse_cells[i], below.flip(0), h_0[2 * i + 1])))
        states += [forward[-1], reverse[-1]]
        below = torch.cat((forward, reverse.flip(0)), dim=-1)
    torch.testing.assert_close(output, below, **EXACT)
    torch.testing.assert_close(h_n, torch.stack(states), **EXACT)


def steps(cell: RHNCell, x: Tensor, s: Tensor):
    for x_now in x:
        s = cell(x_now, s)
        yield s


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"reverse": True}], ids=str)
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_packed_sequences(options, enforce_sorted, with_state):
    layer = make_layer(**options)
    lengths = [4, 2, 1] if enforce_sorted else [2, 4, 1]
    sequences = [random(length, E) for length in lengths]
    cells = len(list(layer.cells)) + len(list(layer.reverse_cells))
    h_0 = random(cells, B, H) if with_state else None
    masks = rhn.VariationalMasks(state=[torch.randint(0, 2, (1, B, H)) * 2.0 for _ in range(cells)])
    packed = rnn.pack_sequence(sequences, enforce_sorted=enforce_sorted)
    output, h_n = layer(packed, h_0, masks)
    assert torch.equal(output.batch_sizes, packed.batch_sizes)
    assert (output.sorted_indices is None) == (packed.sorted_indices is None)
    padded, found_lengths = rnn.pad_packed_sequence(output)
    assert found_lengths.tolist() == lengths
    expected, expected_h_n = layer(rnn.pad_sequence(sequences), h_0, masks, lengths)
    torch.testing.assert_close(padded, expected, **EXACT)
    torch.testing.assert_close(h_n, expected_h_n, **EXACT)
    output.data.sum().backward()
    assert all(p.grad is not None for p in layer.parameters())


def test_dropout_acts_between_layers_while_training():
    layer, x = make_layer(num_layers=2, dropout=0.5), random(T, B, E)
    seen = []
    layer.cells[1].register_forward_pre_hook(lambda cell, arguments: seen.append(arguments[0]))
    torch.manual_seed(1)
    first = layer(x)[0]
    torch.manual_seed(1)
    assert torch.equal(layer(x)[0], first)
    assert not torch.equal(layer(x)[0], first)
    assert 0.2 < (seen[0] == 0).double().mean() < 0.8
    expected = make_layer(num_layers=2)(x)[0]
    assert torch.equal(layer.eval()(x)[0], expected)
    layer.train().dropout = 0.0  # may change, as nn.GRU's
    assert torch.equal(layer(x)[0], expected)


def test_dropout_without_a_layer_above_is_said_to_do_nothing():
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect"):
        RHN(E, H, dropout=0.5)


@pytest.mark.parametrize("share_gate_masks", [True, False])
def test_variational_dropout(share_gate_masks):
    rates = {"drop_input": 0.4, "drop_state": 0.25, "drop_update": 0.3}
    layer, x = make_layer(**rates, share_gate_masks=share_gate_masks), random(T, 50, E)
    masks = []
    layer.cells[0].register_forward_pre_hook(lambda cell, arguments: masks.append(arguments[2:5]))
    torch.manual_seed(1)
    output, _ = layer(x)
    input_mask, state_mask, update_mask = masks[0]
    assert update_mask.shape == (50, H)  # whatever the gates share
    for mask, rate in ((input_mask, 0.4), (state_mask, 0.25), (update_mask.unsqueeze(0), 0.3)):
        assert len(mask) == (1 if share_gate_masks or mask.data_ptr() == update_mask.data_ptr() else 2)
        assert set(mask.unique().tolist()) == {0.0, 1 / (1 - rate)}
        assert abs((mask == 0).double().mean() - rate) < 0.1
        assert not torch.equal(mask[0, 0], mask[0, 1])  # every row its own
    explicit = rhn.VariationalMasks(input=[input_mask], state=[state_mask], update=[update_mask])
    assert torch.equal(layer(x, masks=explicit)[0], output)  # constant over time, as explicit ones are, which win
    assert not torch.equal(layer(x)[0], output)  # anew for every call
    nothing = make_layer()
    assert torch.equal(layer(x, masks=rhn.VariationalMasks())[0], nothing(x)[0])
    assert torch.equal(layer.eval()(x)[0], nothing(x)[0])


def test_without_biases():
    layer = make_layer(num_layers=2, bias=False, recurrence="plain")
    assert not [name for name, _ in layer.named_parameters() if "bias" in name]
    with_zeros, x = make_layer(num_layers=2), random(T, B, E)
    exported = layer.export_parameters()
    assert not exported["layers.1.bias"].any()
    with_zeros.load_parameters(exported)
    torch.testing.assert_close(layer(x)[0], with_zeros(x)[0], **EXACT)
    with pytest.raises(ValueError, match="biases that are not zero are not accepted by a layer with bias=False"):
        layer.load_parameters(make_layer(num_layers=2).export_parameters())


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_parameters_move_between_layers(options):
    layer, other, x = make_layer(**options), make_layer(**options), random(T, B, E)
    other.reset_parameters()
    other.load_parameters(layer.export_parameters())
    assert torch.equal(layer(x)[0], other(x)[0])
    with pytest.raises(ValueError, match="parameters do not fit the layer: missing"):
        layer.load_parameters({})


def test_a_cell_needs_neither_state_nor_batch():
    cell, x, h = RHNCell(E, H, L, dtype=torch.float64), random(B, E), random(B, H)
    assert torch.equal(cell(x), cell(x, torch.zeros(B, H, dtype=torch.float64)))
    torch.testing.assert_close(cell(x[0], h[0]), cell(x, h)[0], **EXACT)
    assert cell(x[0]).shape == (H,)
    assert torch.equal(cell(input=x, hx=h), cell(x=x, h=h))
    window = x.expand(T, B, E)
    torch.testing.assert_close(cell(window, h), torch.stack(list(steps(cell, window, h))), **EXACT)


def test_what_code_for_gru_calls():
    layer = make_layer(num_layers=2, bidirectional=True)
    layer.flatten_parameters()
    assert [len(weights) for weights in layer.all_weights] == [L + 2] * 4
    assert "num_layers=2, bidirectional=True)" in repr(layer).replace("\n", "").replace("  (cells)", ")")


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2, "dropout": 0.5, "drop_state": 0.5}])
def test_copies(options):
    layer, x = make_layer(**options).eval(), random(T, B, E)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(layer(x)[0], other(x)[0])


# ----------------------------------------------------------------------------------------------------------------------
# What is refused, in a sentence
# ----------------------------------------------------------------------------------------------------------------------

REFUSED_OPTIONS = [
    ({"dropout": 1.0}, r"dropout=1\.0 is not accepted: expected a number from 0 up to, not including, 1"),
    ({"drop_input": -0.1}, r"drop_input=-0\.1 is not accepted"),
    ({"drop_state": "a"}, "drop_state='a' is not accepted"),
    ({"bidirectional": 1}, "bidirectional=1 is not accepted: expected True or False"),
    ({"bias": None}, "bias=None is not accepted: expected True or False"),
    ({"bidirectional": True, "reverse": True}, "reverse=True is not accepted with bidirectional=True"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED_OPTIONS)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_layer(**options)


X = random(T, B, E)
ONES = [torch.ones(1, B, E)]
REFUSED_ARGUMENTS = [
    (
        {"hx": torch.zeros(1, B, H)},
        r"hx\.dtype=torch\.float32 is not accepted: expected torch\.float64, which the param",
    ),
    ({"input": X.float()}, r"input\.dtype=torch\.float32 is not accepted: expected torch\.float64, which the param"),
    (
        {"masks": rhn.VariationalMasks(input=[ONES[0][:, :1]])},
        r"masks\.input\[0\] of shape \(1, 1, 5\) is not accepted",
    ),
    ({"masks": rhn.VariationalMasks(state=ONES)}, r"masks\.state\[0\] of shape \(1, 3, 5\) is not accepted"),
    (
        {"masks": rhn.VariationalMasks(input=ONES * 2)},
        r"masks\.input of 2 entries is not accepted: expected one per la",
    ),
    ({"lengths": [1, 2]}, r"lengths of shape \(2,\) and dtype torch\.int64 are not accepted: expected \(3,\) integers"),
    ({"lengths": [1, 2, 5]}, r"lengths=\[1, 2, 5\] is not accepted: expected integers from 0 to 4"),
    ({"lengths": torch.tensor([1.0, 2.0, 3.0])}, "are not accepted"),
    ({"input": X[:, 0], "lengths": [2]}, "lengths are not accepted with one sequence"),
    ({"input": rnn.pack_sequence([X[:, 0]]), "lengths": [2]}, "lengths are not accepted with a PackedSequence"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED_ARGUMENTS)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_layer()(**{"input": X, **arguments})


def test_nested_tensors_are_refused_with_a_way_out():
    nested = torch.nested.nested_tensor([random(3, E), random(2, E)], layout=torch.jagged)
    layer = make_layer(batch_first=True)
    with pytest.raises(ValueError, match="a nested tensor is not accepted as input"):
        layer(nested)
    output, _ = layer(torch.nested.to_padded_tensor(nested, 0.0), lengths=nested.offsets().diff())
    torch.testing.assert_close(output[0], layer(random(3, E))[0], **EXACT)


@pytest.mark.parametrize("tokens", [torch.zeros(4, dtype=torch.long), torch.zeros(2, 4)])
def test_a_language_model_takes_a_batch_of_integers(tokens):
    with pytest.raises(ValueError, match=r"are not accepted: expected \(B, T\) integers"):
        RHNLanguageModel(rhn.RHNConfig(7, H, L))(tokens)


def test_an_empty_batch():
    layer, x = make_layer(num_layers=2), torch.zeros(T, 0, E, dtype=torch.float64, requires_grad=True)
    output, h_n = layer(x, lengths=[])
    assert output.shape == (T, 0, H)
    assert h_n.shape == (2, 0, H)
    output.sum().backward()
    assert x.grad is not None


# ----------------------------------------------------------------------------------------------------------------------
# Hooks, transforms
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}], ids=str)
def test_hooks_on_cells_fire(options):
    layer, seen = make_layer(**options), []
    for cell in layer.modules():
        if isinstance(cell, RHNCell):
            cell.register_forward_hook(lambda cell, arguments, output: seen.append(output.shape))
    layer(X)
    assert seen == [(T, B, H)] * 2


def test_pruning():
    layer = make_layer()
    prune.l1_unstructured(layer.cells[0], "input_weight", amount=0.3)
    before = layer(X)[0]
    layer.cells[0].input_weight_orig.data.mul_(100)
    assert not torch.equal(layer(X)[0], before)
    for _ in range(2):
        layer(X)[0].sum().backward()


@pytest.mark.parametrize(
    "parametrization", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.orthogonal]
)
def test_parametrizations(parametrization):
    layer = make_layer()
    parametrization(layer.cells[0], "input_weight")
    for _ in range(2):
        layer(X)[0].sum().backward()


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_torch_func(recurrence):
    layer = make_layer(num_layers=2, recurrence=recurrence)
    parameters = dict(layer.named_parameters())

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    expected = torch.autograd.grad(loss(parameters, X), list(parameters.values()))
    for actual, gradient in zip(torch.func.grad(loss)(parameters, X).values(), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=0, atol=1e-12)
    rows = X.transpose(0, 1).unsqueeze(2)  # (B, T, 1, E)
    of_rows = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, rows)
    for actual, gradient in zip(of_rows.values(), expected, strict=True):
        torch.testing.assert_close(actual.sum(0), gradient, rtol=0, atol=1e-12)
    _, derivative = torch.func.jvp(lambda x: loss(parameters, x), (X,), (X,))
    d_x = torch.func.grad(loss, argnums=1)(parameters, X)
    torch.testing.assert_close(derivative, (d_x * X).sum(), rtol=1e-12, atol=0)


def test_torch_func_of_the_language_models_loss():
    model = RHNLanguageModel(rhn.RHNConfig(7, H, L), dtype=torch.float64)
    tokens = torch.arange(6).reshape(2, 3)
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(values):
        with nn.utils.stateless._reparametrize_module(model, dict(zip(names, values, strict=True))):
            return model.negative_log_likelihood(tokens, tokens)[0]

    expected = torch.autograd.grad(model.negative_log_likelihood(tokens, tokens)[0], values)
    for actual, gradient in zip(torch.func.grad(loss)(values), expected, strict=True):
        torch.testing.assert_close(actual, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
def test_relu_does_not_grow_in_the_padding(recurrence):
    """Weights with which 400 time steps are too many for float64: the gradients are those of a row alone."""
    layer = make_layer(activation="relu", recurrence=recurrence, bidirectional=True, num_layers=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.abs_()
    x = random(400, 2, E)
    assert not layer(x)[0].isfinite().all()
    gradients = []
    for window in (x, x[:3]):
        output, h_n = layer(window, lengths=[3, 2])
        gradients.append(torch.autograd.grad(output.sum() + h_n.sum(), [*layer.parameters()]))
    for padded, cut in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, cut, rtol=1e-12, atol=0)


# ----------------------------------------------------------------------------------------------------------------------
# Compiled, traced, exported
# ----------------------------------------------------------------------------------------------------------------------


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


# ----------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["best", "last"])
def test_from_checkpoint(tmp_path: Path, which: str):
    config = rhn.RHNConfig(7, H, L, num_layers=2)
    parameters = rhn.initial_parameters(config, 1)
    rest = {"state.0": np.zeros((2, H)), "state.1": np.zeros((2, H)), "optimizer.averaged_steps": np.array(0)}
    path = tmp_path / f"{which}.safetensors"
    rhn.save_checkpoint(path, {**parameters, **(rest if which == "last" else {})}, {"config": config.to_dict()})
    model = RHNLanguageModel.from_checkpoint(path, recurrence="plain")
    assert all(np.array_equal(value, parameters[name]) for name, value in model.export_parameters().items())
    rhn.save_checkpoint(path, parameters, {})
    with pytest.raises(rhn.CheckpointError, match="holds no language model of this project"):
        RHNLanguageModel.from_checkpoint(path)


def test_from_a_folder_with_parameters_in_float16(tmp_path: Path):
    config = rhn.RHNConfig(7, H, L)
    parameters = {name: value.astype(np.float16) for name, value in rhn.initial_parameters(config, 1).items()}
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters, {"config": config.to_dict()})
    model = RHNLanguageModel.from_checkpoint(tmp_path)
    assert model.embedding.dtype == torch.float32
    assert all(np.array_equal(value, parameters[name]) for name, value in model.export_parameters().items())


def test_bfloat16_is_exported_as_float32():
    model = RHNLanguageModel(rhn.RHNConfig(7, H, L), dtype=torch.bfloat16)
    exported = model.export_parameters()
    assert {value.dtype for value in exported.values()} == {np.dtype("float32")}
    assert np.array_equal(exported["embedding"], model.embedding.detach().float().numpy())


# ----------------------------------------------------------------------------------------------------------------------
# And it learns
# ----------------------------------------------------------------------------------------------------------------------


def test_a_classifier_of_padded_sequences_learns():
    """Which was the first token? With lengths from 3 to 12, both directions, and all dropout."""
    torch.manual_seed(0)
    symbols, batch_size, length = 4, 64, 12

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.randint(3, length + 1, (batch_size,))
        tokens = torch.randint(0, symbols, (batch_size, length))
        tokens[torch.arange(length) >= lengths.unsqueeze(1)] = symbols  # padding
        return tokens, lengths, tokens[:, 0]

    embedding = nn.Embedding(symbols + 1, 16)
    layer = RHN(16, 24, 3, 2, True, dropout=0.1, bidirectional=True, drop_input=0.1, drop_state=0.1, init_scale=0.2)
    readout = nn.Linear(2 * 24, symbols)
    model = nn.ModuleList([embedding, layer, readout])

    def logits(tokens: Tensor, lengths: Tensor) -> Tensor:
        _, h_n = layer(embedding(tokens), lengths=lengths)
        return readout(torch.cat((h_n[-2], h_n[-1]), dim=-1))

    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        tokens, lengths, classes = batch()
        loss = nn.functional.cross_entropy(logits(tokens, lengths), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    tokens, lengths, classes = batch()
    assert (logits(tokens, lengths).argmax(-1) == classes).double().mean() > 0.95
