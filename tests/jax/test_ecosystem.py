"""RHN and RHNCell in code of Flax' users: in place of `nnx.RNN` and of Flax' cells, and what once failed there."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import Array
from numpy.typing import NDArray

import rhn
from rhn_jax import RHN, RHNCell, RHNLanguageModel

T, B, E, H, L = 5, 4, 3, 6, 2
LENGTHS = np.array([0, 2, T, 1])
VALID = np.arange(T)[:, None] < LENGTHS[:, None, None]  # (B, T, 1)


def make_layer(seed: int = 0, **options: Any) -> RHN:
    """With parameters large enough that all of them have an effect."""
    return RHN(E, H, L, init_scale=0.8, rngs=nnx.Rngs(seed), **options)


def data(*shape: int) -> NDArray:
    return np.random.default_rng(len(shape)).standard_normal(shape or (B, T, E)).astype(np.float32)


def run(module: nnx.Module, *arguments: Any, **options: Any) -> Any:
    return nnx.jit(lambda module, arguments: module(*arguments, **options))(module, arguments)


def assert_close(actual: Any, expected: Any, tolerance: float = 2e-6) -> None:
    """Measured: 4e-7, in float32."""
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance)


# ----------------------------------------------------------------------------------------------------------------------
# Called as nnx.RNN
# ----------------------------------------------------------------------------------------------------------------------


def test_takes_every_argument_of_a_call_of_nnx_rnn() -> None:
    of_rnn, own = (inspect.signature(layer.__call__).parameters for layer in (nnx.RNN, RHN))
    assert [name for name in of_rnn if name not in own] == []
    assert [name for name, p in of_rnn.items() if p.kind is p.KEYWORD_ONLY and own[name].kind != p.kind] == []


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"reverse": True, "keep_order": True}], ids=str)
@pytest.mark.parametrize("time_major", [False, True])
def test_answers_as_nnx_rnn_of_its_cell(options: dict[str, bool], time_major: bool, with_lengths: bool) -> None:
    """But that outputs after a sequence's end are 0, and a sequence of no steps leaves the carry as it is."""
    layer, x, start = make_layer(), data(), data(B, H)
    lengths = np.maximum(LENGTHS, 1) if with_lengths else None  # nnx.RNN has no carry for a length of 0
    rnn = nnx.RNN(layer.cells[0])
    call = {"time_major": time_major, "seq_lengths": lengths, **options}
    x = x.swapaxes(0, 1) if time_major else x
    expected_carry, expected = run(rnn, x, initial_carry=start, return_carry=True, **call)
    (carry,), outputs = run(layer, x, initial_carry=[start], return_carry=True, **call)
    if lengths is not None:
        valid = np.arange(T)[:, None] < lengths[:, None, None]  # (B, T, 1)
        expected = np.where(valid.swapaxes(0, 1) if time_major else valid, expected, 0)
    assert_close((carry, outputs), (expected_carry, expected))


@pytest.mark.parametrize("name", ["time_major", "return_carry", "reverse", "keep_order"])
def test_the_constructor_sets_what_a_call_does_not_say(name: str) -> None:
    x, options = data(), {"reverse": True} if name == "keep_order" else {}
    assert_close(run(make_layer(**options, **{name: True}), x), run(make_layer(), x, **options, **{name: True}))
    assert_close(run(make_layer(**{name: True}), x, **options, **{name: False}), run(make_layer(), x, **options))


def test_more_batch_axes_than_one() -> None:
    layer, x, lengths = make_layer(bidirectional=True), data(2, 3, T, E), np.array([[0, 1, 2], [3, 4, 5]])
    outputs = run(layer, x, seq_lengths=lengths)
    flat = run(layer, x.reshape(6, T, E), seq_lengths=lengths.ravel())
    assert_close(outputs.reshape(6, T, 2 * H), flat)
    assert_close(run(layer, x[1, 0], seq_lengths=3), outputs[1, 0])


@pytest.mark.parametrize("call", [lambda layer, x: layer(None, x), lambda layer, x: layer([data(B, H)], x, None)])
def test_a_call_with_the_carry_first_says_how_it_is_called_now(call: Any) -> None:
    with pytest.raises(TypeError, match=r"layer\(carry, x\) is now layer\(x, initial_carry=carry, return_carry=True\)"):
        call(make_layer(), data())


def test_a_carry_that_is_one_array_is_refused() -> None:
    with pytest.raises(ValueError, match=r"initial_carry of shapes \(4, 6\) is not accepted: expected a list with one"):
        make_layer()(data(), initial_carry=data(B, H))


@pytest.mark.parametrize("shape", [(0, T, E), (B, 0, E)])
@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_nothing_to_read(shape: tuple[int, ...], recurrence: str) -> None:
    layer, x = make_layer(recurrence=recurrence), jnp.zeros(shape)
    (carry,), outputs = layer(x, return_carry=True)
    expected_carry, expected = nnx.RNN(nnx.GRUCell(E, H, rngs=nnx.Rngs(0)))(x, return_carry=True)
    assert (carry.shape, outputs.shape) == (expected_carry.shape, expected.shape)
    gradients = nnx.grad(lambda layer: layer(x).sum())(layer)
    assert not any(g.any() for g in jax.tree.leaves(gradients))


# ----------------------------------------------------------------------------------------------------------------------
# Sequences of different lengths
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
def test_a_sequence_is_computed_as_if_it_were_alone(options: dict[str, Any], recurrence: str) -> None:
    layer = make_layer(num_layers=2, keep_order=True, return_carry=True, recurrence=recurrence, **options)
    x, start = data(), [data(B, H) + i for i in range(len(layer.cells))]
    carry, outputs = layer(x, initial_carry=start, seq_lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, expected = layer(x[row, :length], initial_carry=[s[row] for s in start])
        assert_close([c[row] for c in carry], alone)
        assert_close(outputs[row, :length], expected)
        assert not outputs[row, length:].any()


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
@pytest.mark.parametrize("junk", [1e6, np.inf, np.nan])
def test_nothing_depends_on_the_padding(junk: float, recurrence: str) -> None:
    layer = make_layer(num_layers=2, bidirectional=True, return_carry=True, recurrence=recurrence)
    x = data()

    def loss(layer: RHN, x: Array) -> tuple[Array, Any]:
        results = layer(x, seq_lengths=LENGTHS)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(results)), results

    differentiate = nnx.jit(nnx.grad(loss, argnums=(0, 1), has_aux=True))
    (gradients, d_x), results = differentiate(layer, np.where(VALID, x, junk))
    expected = differentiate(layer, np.where(VALID, x, 0))
    for leaf, expected_leaf in zip(jax.tree.leaves((gradients, d_x, results)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(leaf, expected_leaf)
    assert not np.where(VALID, 0, d_x).any()


def test_lengths_that_are_known_while_the_rest_is_traced() -> None:
    layer, x, lengths = make_layer(), data(), jnp.asarray(LENGTHS)
    assert_close(nnx.jit(lambda layer, x: layer(x, seq_lengths=lengths))(layer, x), run(layer, x, seq_lengths=LENGTHS))


def test_full_lengths_are_no_lengths() -> None:
    layer, x = make_layer(return_carry=True), data()
    assert_close(run(layer, x, seq_lengths=np.full(B, T)), run(layer, x))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 2, 3, T + 1], "seq_lengths from 1 to 6 is not accepted: expected integers from 0 to 5"),
        ([1, 2, 3, -1], "seq_lengths from -1 to 3 is not accepted"),
        ([1, 2], r"seq_lengths of shape \(2,\) and dtype int64 is not accepted: .* of shape \(4,\)"),
        (np.ones(B), "dtype float64 is not accepted: expected one integer per sequence"),
    ],
)
def test_lengths_that_do_not_fit(lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_layer()(data(), seq_lengths=lengths)
    with pytest.raises(ValueError, match=message):  # known while a function of the rest is traced
        jax.jit(lambda x: make_layer()(x, seq_lengths=lengths))(data())


# ----------------------------------------------------------------------------------------------------------------------
# Both directions, and other modules
# ----------------------------------------------------------------------------------------------------------------------


def test_nnx_bidirectional_of_two_layers_is_one_layer_with_both_directions() -> None:
    both, x = make_layer(bidirectional=True, return_carry=True), data()
    forward, backward = make_layer(1), make_layer(2)
    exported = both.export_parameters()
    for layer, prefix in ((forward, "layers.0."), (backward, "layers.0.reverse.")):
        names = ("input_weight", "recurrent_weight", "bias")
        layer.load_parameters({f"layers.0.{name}": exported[prefix + name] for name in names})
    of_flax = nnx.Bidirectional(forward, backward, return_carry=True)
    ((forward_carry,), (backward_carry,)), expected = run(of_flax, x, seq_lengths=LENGTHS)
    carry, outputs = run(both, x, seq_lengths=LENGTHS)
    assert_close((carry, outputs), ([forward_carry, backward_carry], expected))
    with pytest.raises(ValueError, match="reverse=True is not accepted: expected False, since the layer reads in both"):
        both(x, reverse=True)


def test_in_nnx_sequential() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(RHN(E, H, L, rngs=rngs), nnx.Linear(H, E, rngs=rngs), RHN(E, H, L, rngs=rngs))
    assert run(model, data()).shape == (B, T, H)


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True, "couple_gates": False}], ids=str)
def test_parameters_by_the_specifications_names_make_the_same_layer(options: dict[str, Any]) -> None:
    layer, other, x = make_layer(**options), make_layer(5, **options), data()
    parameters = layer.export_parameters()
    assert not np.array_equal(run(layer, x), run(other, x))
    other.load_parameters(parameters)
    np.testing.assert_array_equal(run(layer, x), run(other, x))
    outputs, _ = rhn.spec.layers.layers_forward(layer.config, parameters, x)
    assert_close(run(layer, x), outputs)
    with pytest.raises(ValueError, match=r"not expected softmax\.bias"):
        layer.load_parameters({**parameters, "softmax.bias": np.zeros(3)})


# ----------------------------------------------------------------------------------------------------------------------
# What Flax' cells take
# ----------------------------------------------------------------------------------------------------------------------


def test_initialisers_of_flax() -> None:
    init = nnx.initializers
    options = {"kernel_init": init.ones, "recurrent_kernel_init": init.orthogonal(), "bias_init": init.constant(3.0)}
    for cell in (RHNCell(E, H, L, **options, rngs=nnx.Rngs(0)), make_layer(**options).cells[0]):
        np.testing.assert_array_equal(cell.input_weight, np.ones((E, 2 * H)))
        for weight in cell.recurrent_weights:
            assert_close(weight @ weight.T, np.eye(H))
        np.testing.assert_array_equal(cell.bias, np.tile([3.0, -2.0], (L, 1)).repeat(H, axis=1))


def test_the_carrys_initialiser() -> None:
    layer, x = make_layer(carry_init=nnx.initializers.normal(1.0)), data()
    assert_close(layer(x, rngs=nnx.Rngs(3)), layer(x, initial_carry=layer.initialize_carry((B, E), nnx.Rngs(3))))
    assert not np.allclose(layer(x, rngs=nnx.Rngs(3)), layer(x, rngs=nnx.Rngs(4)))
    with pytest.raises(ValueError, match="carry_init is given without rngs"):
        layer(x)


def test_computes_in_a_lower_dtype_than_its_parameters() -> None:
    layer, x = make_layer(dtype=jnp.bfloat16), data()
    (carry,), outputs = run(layer, x, return_carry=True)
    of_cell = run(nnx.RNN(layer.cells[0]), x)
    assert carry.dtype == outputs.dtype == of_cell.dtype == jnp.bfloat16
    gradients = nnx.jit(nnx.grad(lambda layer, x: layer(x).astype(jnp.float32).sum()))(layer, x)
    assert {g.dtype.name for g in jax.tree.leaves(gradients)} == {"float32"}
    assert_close(outputs.astype(jnp.float32), run(make_layer(), x), tolerance=0.03)  # measured 0.006


def test_the_users_promotion_is_used() -> None:
    seen = []

    def promote(arrays: tuple[Any, ...], /, *, dtype: Any = None, inexact: bool = True) -> tuple[Array, ...]:
        seen.extend(arrays)
        return tuple(jnp.asarray(array, dtype) for array in arrays)

    assert make_layer(promote_dtype=promote)(data()).dtype == jnp.float32
    assert {jnp.shape(array) for array in seen} == {(T, B, E), (B, H), (E, 2 * H), (H, 2 * H), (L, 2 * H)}


def test_sharding_of_the_parameters() -> None:
    names = {"out_sharding": (None, "model")}
    mesh = jax.make_mesh((1,), ("model",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        layer = make_layer(kernel_metadata=names, recurrent_kernel_metadata=names, bias_metadata=names)
        specs = nnx.to_flat_state(nnx.get_partition_spec(nnx.state(layer, nnx.Param)))
        assert run(layer, data()).shape == (B, T, H)
        partitioned = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        (spec,) = nnx.to_flat_state(nnx.get_partition_spec(nnx.state(make_layer(kernel_init=partitioned).cells[0])))[
            1:2
        ]
    assert {spec.get_value() for _, spec in specs} == {jax.sharding.PartitionSpec(None, "model")}
    assert spec[1].get_value() == jax.sharding.PartitionSpec(None, "model")


# ----------------------------------------------------------------------------------------------------------------------
# Export, and the language model
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrence", ["fast", "recompute", "plain"])
@pytest.mark.parametrize("open_sizes", ["b", "b, t"])
def test_export_with_sizes_left_open(open_sizes: str, recurrence: str) -> None:
    layer = make_layer(recurrence=recurrence, bidirectional=True, return_carry=True)
    graph, params = nnx.split(layer)
    leaves, structure = jax.tree.flatten(params)

    def pure(leaves: list[Array], x: Array, lengths: Array) -> Any:
        return nnx.merge(graph, jax.tree.unflatten(structure, leaves))(x, seq_lengths=lengths)

    batch, *rest = jax.export.symbolic_shape(open_sizes)
    shapes = (
        jax.ShapeDtypeStruct((batch, *(rest or [T]), E), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    payload = jax.export.export(jax.jit(pure))(leaves, *shapes).serialize(vjp_order=1)
    restored = jax.export.deserialize(payload)
    x, lengths = data(), LENGTHS.astype(np.int32)
    assert_close(restored.call(leaves, x, lengths), pure(leaves, x, lengths))
    of_restored, expected = (
        jax.grad(lambda leaves, call=call: call(leaves, x, lengths)[1].sum())(leaves) for call in (restored.call, pure)
    )
    assert_close(of_restored, expected, tolerance=2e-5)


CONFIG = rhn.RHNConfig(vocab_size=7, hidden_size=4, recurrence_depth=2)
TOKENS = np.arange(6).reshape(2, 3)


def test_language_model_refuses_what_it_cannot_mean() -> None:
    model = RHNLanguageModel(CONFIG, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"tokens of shape \(6,\) and dtype int32 are not accepted: expected \(B, T\)"):
        model(jnp.arange(6, dtype=jnp.int32))
    for carry in (None, [np.zeros((2, 4))], [jnp.zeros((2, 4))]):
        with pytest.raises(TypeError, match=r"is now logits, state = model\(tokens, state, masks\)"):
            model(carry, TOKENS)
    with pytest.raises(ValueError, match=r"masks.output of shape \(1, 4\) is not accepted: expected shape \(2, 4\)"):
        model(TOKENS, masks=rhn.VariationalMasks(output=np.ones((1, 4))))


@pytest.mark.parametrize("which", ["best", "last"])
def test_language_model_of_a_checkpoint(which: str, tmp_path: Path) -> None:
    parameters = rhn.initial_parameters(CONFIG, seed=1)
    rest = {f"state.{i}": np.zeros((1, 4)) for i in range(CONFIG.num_layers)} if which == "last" else {}
    path = tmp_path / f"{which}.safetensors"
    rhn.save_checkpoint(path, {**parameters, **rest}, {"config": CONFIG.to_dict(), "backend": "torch"})
    model = RHNLanguageModel.from_checkpoint(path, drop_state=0.1, rngs=nnx.Rngs(3))
    assert model.rhn.state_dropout.rate == 0.1
    exported = model.export_parameters()
    for name, value in parameters.items():
        np.testing.assert_array_equal(exported[name], value)
    rhn.save_checkpoint(path, parameters, {})
    with pytest.raises(rhn.CheckpointError, match="holds no language model of this project"):
        RHNLanguageModel.from_checkpoint(path)


def test_language_model_of_a_folder_with_parameters_in_float16(tmp_path: Path) -> None:
    parameters = {name: value.astype(np.float16) for name, value in rhn.initial_parameters(CONFIG, seed=1).items()}
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters, {"config": CONFIG.to_dict()})
    for name, value in RHNLanguageModel.from_checkpoint(tmp_path).export_parameters().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, parameters[name])


def test_a_bfloat16_model_exports_float32(tmp_path: Path) -> None:
    model = RHNLanguageModel(CONFIG, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    exported = model.export_parameters()
    assert {p.dtype.name for p in exported.values()} == {"float32"}
    rhn.save_checkpoint(tmp_path / "model.safetensors", exported, {"config": CONFIG.to_dict()})
    again = RHNLanguageModel.from_checkpoint(tmp_path / "model.safetensors", param_dtype=jnp.bfloat16)
    np.testing.assert_array_equal(again(TOKENS)[0], model(TOKENS)[0])


# ----------------------------------------------------------------------------------------------------------------------
# Learning
# ----------------------------------------------------------------------------------------------------------------------


def test_a_classifier_of_padded_sequences_learns() -> None:
    """The class is the pair of a sequence's first and last symbol; random symbols follow as padding."""
    generator = np.random.default_rng(0)
    size, length, symbols = 512, 12, 4
    tokens, lengths = generator.integers(0, symbols, (size, length)), generator.integers(2, length + 1, size)
    classes = tokens[:, 0] * symbols + tokens[np.arange(size), lengths - 1]

    class Classifier(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.embedding = nnx.Embed(symbols, 16, rngs=rngs)
            self.rhn = RHN(16, 32, 2, bidirectional=True, return_carry=True, drop_input=0.1, drop_state=0.1, rngs=rngs)
            self.readout = nnx.Linear(64, symbols * symbols, rngs=rngs)

        def __call__(self, tokens: Array, lengths: Array) -> Array:
            carry, _ = self.rhn(self.embedding(tokens), seq_lengths=lengths)
            return self.readout(jnp.concatenate(carry, axis=-1))

    @nnx.jit
    def create() -> tuple[Classifier, nnx.Optimizer]:
        model = Classifier(nnx.Rngs(0))
        return model, nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)

    @nnx.jit
    def step(model: Classifier, optimizer: nnx.Optimizer, rows: Array) -> None:
        def loss(model: Classifier) -> Array:
            logits = model(jnp.asarray(tokens)[rows], jnp.asarray(lengths)[rows])
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(classes)[rows]).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    model, optimizer = create()
    for _ in range(150):
        step(model, optimizer, generator.integers(0, 384, 64))
    model.eval()
    predicted = np.argmax(run(model, tokens[384:], lengths[384:]), axis=-1)  # of sequences that it never saw
    assert (predicted == classes[384:]).mean() > 0.95
