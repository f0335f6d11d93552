"""RHNLanguageModel: trained by Keras, and from a checkpoint."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from layers_tf import CONFIG

import rhn
from rhn_tf import RHNLanguageModel


@pytest.mark.parametrize("return_state", [True, False])
def test_fit_with_one_loss(return_state: bool) -> None:
    tokens = np.random.default_rng(1).integers(0, 7, (8, 5))
    model = RHNLanguageModel(CONFIG, return_state=return_state)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    losses = model.fit(tokens, tokens, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    logits = model(tokens)[0] if return_state else model(tokens)
    scored, accuracy = model.evaluate(tokens, tokens, verbose=0)
    assert scored == pytest.approx(float(loss(tokens, logits)), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(np.argmax(logits, axis=-1) == tokens))


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_model_from_a_checkpoint(which: str, tmp_path: Path) -> None:
    parameters = rhn.initial_parameters(CONFIG, seed=1)
    more = (
        {"state.0": np.zeros((2, 4)), "state.1": np.zeros((2, 4)), "optimizer.averaged_steps": np.array(0)}
        if which == "last"
        else {}
    )
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters | more, {"config": CONFIG.to_dict()})
    model = RHNLanguageModel.from_checkpoint(tmp_path / "model.safetensors", return_state=False)
    assert model(np.array([[1, 2]])).shape == (1, 2, 7)
    for name, value in model.export_parameters().items():
        np.testing.assert_array_equal(value, parameters[name])


def test_a_model_from_a_folder_with_parameters_in_float16(tmp_path: Path) -> None:
    parameters = {name: value.astype(np.float16) for name, value in rhn.initial_parameters(CONFIG, seed=1).items()}
    rhn.save_checkpoint(tmp_path / "model.safetensors", parameters, {"config": CONFIG.to_dict()})
    for name, value in RHNLanguageModel.from_checkpoint(tmp_path).export_parameters().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, parameters[name])


def test_a_file_that_holds_no_language_model_says_so(tmp_path: Path) -> None:
    rhn.save_checkpoint(tmp_path / "other.safetensors", {"x": np.zeros(1)}, {})
    with pytest.raises(ValueError, match="holds no language model of this project"):
        RHNLanguageModel.from_checkpoint(tmp_path / "other.safetensors")
