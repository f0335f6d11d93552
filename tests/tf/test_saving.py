"""Models with RHN layers, written by Keras and read back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from cases import make_case

import rhn
from rhn_tf import RHN, RHNCell, RHNLanguageModel

X = np.random.default_rng(1).standard_normal((4, 5, 3)).astype(np.float32)  # (B, T, E)


def functional_model() -> keras.Model:
    inputs = keras.Input((None, 3))
    hidden = RHN(6, 2, return_sequences=True)(inputs)
    return keras.Model(inputs, keras.layers.RNN(RHNCell(4, 1))(hidden))


def test_keras_file(tmp_path: Path) -> None:
    model = functional_model()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(X), model(X))


def test_keras_file_with_masks_as_inputs(tmp_path: Path) -> None:
    inputs, mask = keras.Input((5, 3)), keras.Input(batch_shape=(1, None, 6))
    model = keras.Model([inputs, mask], RHN(6, 2)(inputs, masks=rhn.VariationalMasks(state=[mask])))
    model.save(tmp_path / "model.keras")
    arguments = [X, np.full((1, 4, 6), 0.5)]
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(arguments), model(arguments))


def test_keras_file_of_the_language_model(tmp_path: Path) -> None:
    case = make_case(num_layers=2)
    model = RHNLanguageModel(
        case.config, recurrence="plain", init_scale=0.1, transform_bias=-1.0, matmul_dtype="bfloat16"
    )
    logits, *state = model(case.tokens)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.get_config() == model.get_config()
    assert again.config == case.config
    for actual, expected in zip(again(case.tokens), (logits, *state), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_saved_model_runs_without_this_package(tmp_path: Path) -> None:
    model = functional_model()
    model.export(tmp_path / "served", verbose=False)
    np.savez(tmp_path / "arrays.npz", x=X, y=model(X), shorter=model(X[:1, :2]))
    code = f"""
import sys
import numpy as np, tensorflow as tf
arrays, model = np.load({str(tmp_path / "arrays.npz")!r}), tf.saved_model.load({str(tmp_path / "served")!r})
np.testing.assert_allclose(model.serve(arrays["x"]), arrays["y"], atol=1e-6)
np.testing.assert_allclose(model.serve(arrays["x"][:1, :2]), arrays["shorter"], atol=1e-6)
assert not any(name.startswith("rhn") for name in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_saved_model_of_the_language_model(tmp_path: Path) -> None:
    case = make_case()
    model = RHNLanguageModel(case.config)
    expected = model(case.tokens)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    # Keras does not know that tokens are integers: the exported model takes floats.
    for actual, value in zip(served.serve(case.tokens.astype(np.float32)), expected, strict=True):
        np.testing.assert_allclose(actual, value, atol=1e-6)
