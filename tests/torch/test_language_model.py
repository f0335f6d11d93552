"""RHNLanguageModel: its input, `torch.func`, checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from layers_torch import H, L
from torch import nn

import rhn
from rhn_torch import RHNLanguageModel


@pytest.mark.parametrize("tokens", [torch.zeros(4, dtype=torch.long), torch.zeros(2, 4)])
def test_a_language_model_takes_a_batch_of_integers(tokens):
    with pytest.raises(ValueError, match=r"are not accepted: expected \(B, T\) integers"):
        RHNLanguageModel(rhn.RHNConfig(7, H, L))(tokens)


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
