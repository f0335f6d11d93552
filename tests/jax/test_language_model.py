"""RHNLanguageModel: its input, checkpoints."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import rhn
from rhn_jax import RHNLanguageModel

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
