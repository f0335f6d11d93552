"""RHNLanguageModel and its loss."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from cases import GENERATED, generating_case, make_case
from torch.nn import functional as F

import rhn
from rhn_torch import RHNLanguageModel
from rhn_torch.loss import softmax_cross_entropy


def make_model(case, **options) -> RHNLanguageModel:
    model = RHNLanguageModel(case.config, dtype=torch.float64, **options)
    model.load_parameters(case.parameters)
    return model


ARCHITECTURES = [{}, {"num_layers": 2}, {"tie_weights": False, "embedding_size": 4, "couple_gates": False}]


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_parameters_survive_the_round_trip(options):
    case = make_case(**options)
    exported = make_model(case).export_parameters()
    assert list(exported) == list(rhn.parameter_shapes(case.config))
    for name, value in case.parameters.items():
        assert np.array_equal(exported[name], value), name


def test_exported_parameters_are_copies():
    model = make_model(make_case())
    model.export_parameters()["softmax.bias"][:] = 7.0
    assert not (model.softmax_bias == 7.0).any()


def test_parameters_that_do_not_fit():
    case = make_case()
    with pytest.raises(ValueError, match=r"missing softmax\.bias"):
        make_model(case).load_parameters({k: v for k, v in case.parameters.items() if k != "softmax.bias"})


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_parameter_count(options):
    case = make_case(**options)
    assert sum(p.numel() for p in make_model(case).parameters()) == rhn.parameter_count(case.config)


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("recurrence", ["fast", "plain"])
def test_negative_log_likelihood_is_cross_entropy_of_the_logits(options, recurrence):
    case = make_case(**options)
    tokens, targets = torch.from_numpy(case.tokens), torch.from_numpy(case.targets)
    state = [torch.from_numpy(s) for s in case.state]
    one, other = make_model(case), make_model(case, recurrence=recurrence)

    nll, new_state = one.negative_log_likelihood(tokens, targets, state, case.masks)
    logits, other_state = other(tokens, state, case.masks)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    (0.3 * nll).backward()
    (0.3 * expected).backward()

    torch.testing.assert_close(nll, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(new_state, other_state, rtol=0, atol=1e-13)
    for parameter, other_parameter in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other_parameter.grad, rtol=0, atol=1e-13)
        assert parameter.grad.layout == torch.strided


def test_softmax_cross_entropy_passes_gradcheck():
    top, weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4, 3), (5, 3), (5,)))
    targets = torch.tensor([4, 0, 0, 2])
    torch.autograd.gradcheck(lambda *t: softmax_cross_entropy(*t, targets), (top, weight, bias))


def test_softmax_cross_entropy_is_the_same_in_blocks_bit_for_bit(monkeypatch):
    top, weight, bias = (torch.randn(s, requires_grad=True) for s in ((9, 3), (5, 3), (5,)))
    targets = torch.arange(9) % 5
    results = []
    for block in (9, 2):
        monkeypatch.setattr("rhn_torch.loss._LOGITS_IN_CACHE", block * 5)
        loss = softmax_cross_entropy(top, weight, bias, targets)
        results.append((loss, *torch.autograd.grad(loss, (top, weight, bias))))
    assert all(torch.equal(whole, in_blocks) for whole, in_blocks in zip(*results, strict=True))


def test_softmax_cross_entropy_of_hopeless_logits_is_finite():
    top = torch.tensor([[1000.0]], requires_grad=True)
    weight, bias, targets = torch.tensor([[1.0], [-1.0]]), torch.zeros(2), torch.tensor([1])
    loss = softmax_cross_entropy(top, weight, bias, targets)
    loss.backward()
    assert loss.item() == 2000.0
    assert top.grad.item() == 2.0


def test_second_derivative_of_the_loss_names_the_way_out():
    case = make_case()
    model = make_model(case, recurrence="plain")
    nll, _ = model.negative_log_likelihood(torch.from_numpy(case.tokens), torch.from_numpy(case.targets))
    with pytest.raises(RuntimeError, match=r"use F\.linear and F\.cross_entropy"):
        torch.autograd.grad(nll, model.softmax_bias, create_graph=True)


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_plain_model_has_second_derivatives(options):
    case = make_case(length=2, batch_size=1, recurrence_depth=1, hidden_size=2, vocab_size=3, **options)
    model, tokens = make_model(case, recurrence="plain"), torch.from_numpy(case.tokens)

    def of_tensors(embedding, bias):
        logits, _ = torch.func.functional_call(model, {"embedding": embedding, "softmax_bias": bias}, (tokens,))
        return logits.log_softmax(dim=-1)

    torch.autograd.gradgradcheck(of_tensors, (model.embedding, model.softmax_bias))


@pytest.mark.parametrize("options", ARCHITECTURES, ids=str)
def test_copies_and_state_dict(options):
    case = make_case(**options)
    model, tokens = make_model(case), torch.from_numpy(case.tokens)
    other = copy.deepcopy(model)
    other.reset_parameters()
    assert not torch.equal(model(tokens)[0], other(tokens)[0])
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(tokens)[0], other(tokens)[0])


def test_generates_what_the_reference_does():
    config, parameters = generating_case()
    model = RHNLanguageModel(config)
    model.load_parameters(parameters)
    assert model.generate([1, 2], 10, seed=4, top_k=5) == GENERATED
    with pytest.raises(ValueError, match="temperature=0 is not accepted: expected a number above 0"):
        model.generate([1, 2], 10, temperature=0)
