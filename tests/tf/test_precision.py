"""Matrix products whose factors are rounded: what remains float32, and how far from it the results are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import tensorflow as tf

import rhn
from rhn.spec.optimizers import PAPER_SGD
from rhn_tf import RHNLanguageModel
from rhn_tf.backend import TensorFlowBackend, TensorFlowModel
from rhn_tf.precision import Precision

# Relative difference to float32. Measured: 0.4 % in norm for the worst gradient, 0.0003 % for the loss after training.
TOLERANCE = 0.01

TEXT = "to be or not to be that is the question "
SYMBOLS = sorted(set(TEXT))
CONFIG = rhn.RHNConfig(vocab_size=len(SYMBOLS), hidden_size=32, recurrence_depth=3)
PARAMETERS = rhn.initial_parameters(CONFIG, seed=1, init_scale=0.2)
SHAPE = (8, 10)  # (B, T) of every window: XLA compiles for each shape


@pytest.fixture(scope="module")
def models() -> list[TensorFlowModel]:
    """In float32, and with bfloat16 products as the backend builds it for a device that has them."""
    return [
        TensorFlowModel(CONFIG, PARAMETERS, "float32", "/device:CPU:0", PAPER_SGD, precision, recompute=False)
        for precision in (Precision(), Precision("bfloat16"))
    ]


def test_gradients_are_those_of_float32(models: list[TensorFlowModel]) -> None:
    tokens, targets = np.random.default_rng(1).integers(0, CONFIG.vocab_size, (2, *SHAPE))  # (B, T) each
    masks = rhn.sample_masks(CONFIG, tokens, rhn.DropRates(0.25, 0.4, 0.3, 0.35), seed=1, step=0)
    (_, expected, _), (_, actual, _) = (model.gradients(tokens, targets, masks=masks) for model in models)
    for name, gradient in expected.items():
        error = np.linalg.norm(actual[name] - gradient) / np.linalg.norm(gradient)
        assert 0 < error < TOLERANCE, name


def test_training_ends_where_it_does_in_float32(models: list[TensorFlowModel]) -> None:
    batch_size, length = SHAPE
    ids = np.array([SYMBOLS.index(symbol) for symbol in TEXT * 30])
    text = np.stack([np.roll(ids, -5 * row) for row in range(batch_size)])
    states, losses = [model.zero_state(batch_size) for model in models], [np.inf, np.inf]
    for step in range(60):
        tokens, targets = (text[:, length * step + ahead :][:, :length] for ahead in (0, 1))  # (B, T) each
        masks = rhn.sample_masks(CONFIG, tokens, rhn.DropRates(0.1, 0.1, 0.1, 0.1), seed=1, step=step)
        for i, model in enumerate(models):
            loss, states[i] = model.train_step(tokens, targets, states[i], masks, 0.2, 1e-7, 10.0)
            losses[i] = float(loss)
    assert losses[0] < 22  # of 25.5 at the start
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)


@pytest.mark.parametrize("recurrence", ["fast", "plain", "recompute"])
def test_everything_but_the_factors_is_float32(recurrence: str) -> None:
    model = RHNLanguageModel(CONFIG, recurrence=recurrence, matmul_dtype="bfloat16")
    with tf.GradientTape() as tape:
        logits, *state = model(np.array([[1, 2, 3]]))
        loss = tf.reduce_sum(logits)
    gradients = tape.gradient(loss, model.trainable_variables)
    tensors = [logits, *state, *map(tf.convert_to_tensor, gradients)]
    assert {tensor.dtype for tensor in tensors} == {tf.float32}
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_the_backend_takes_bfloat16_only_where_it_is_faster() -> None:
    for precision in ("bf16", "tf32", "float32"):
        model = TensorFlowBackend().build(CONFIG, PARAMETERS, "float32", "cpu", precision=precision)
        assert {cell.precision.matmul_dtype for cell in model.module.rhn.cells} == {None}
    assert Precision.on_device("bf16", "/device:GPU:0").matmul_dtype == "bfloat16"


@pytest.fixture(params=[False, True])
def of_the_process(request: pytest.FixtureRequest) -> Iterator[bool]:
    """What a user has set TensorFlow's switch for TF32 to."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(request.param)
    yield request.param
    tf.config.experimental.enable_tensor_float_32_execution(before)


def compiles_in_tf32(precision: Precision) -> bool:
    """Whether XLA may round the factors of a product that it compiles within `precision.products()`."""
    matrix = tf.ones((2, 2))
    with precision.products():
        program = tf.function(precision.matmul, jit_compile=True).experimental_get_compiler_ir(matrix, matrix)
        return "operand_precision={highest,highest}" not in program(stage="hlo")


def test_xla_compiles_each_model_in_its_own_precision(of_the_process: bool) -> None:
    for name, tf32 in {"bf16": True, "tf32": True, "float32": False}.items():
        assert compiles_in_tf32(Precision.on_device(name, "/device:CPU:0")) is tf32
    assert compiles_in_tf32(Precision()) is of_the_process


@pytest.mark.usefixtures("eagerly")
def test_a_second_model_does_not_change_the_first(of_the_process: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = tf.config.experimental.tensor_float_32_execution_enabled
    models = {
        precision: TensorFlowBackend().build(CONFIG, PARAMETERS, device="cpu", precision=precision)
        for precision in ("float32", "tf32")
    }
    call, seen = RHNLanguageModel.call, []

    def watched(self: RHNLanguageModel, *arguments: object, **options: object) -> object:
        seen.append(switch())
        return call(self, *arguments, **options)

    monkeypatch.setattr(RHNLanguageModel, "call", watched)
    for precision in ("float32", "tf32", "float32"):
        models[precision].forward(np.array([[1, 2]]))
        assert switch() is of_the_process
    assert seen == [False, True, False]
