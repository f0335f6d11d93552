"""RHNLanguageModel: parameters of the specification in and out, and training the Keras way."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from cases import ARCHITECTURES, GENERATED, generating_case, make_case, name_of

import rhn
from rhn.spec import reference
from rhn_tf import RHNLanguageModel


@pytest.mark.parametrize("options", ARCHITECTURES, ids=name_of)
def test_parameters_round_trip(options: dict[str, object]) -> None:
    case = make_case(**options)
    model = RHNLanguageModel(case.config, dtype="float64")
    model.build((None, None))
    model.load_parameters(case.parameters)
    exported = model.export_parameters()
    assert list(exported) == list(rhn.parameter_shapes(case.config))
    for name, value in case.parameters.items():
        np.testing.assert_array_equal(exported[name], value)
    assert model.count_params() == rhn.parameter_count(case.config)
    assert [id(v) for v in model.parameters] == [id(v) for v in model.trainable_variables]


def test_foreign_parameters_say_what_is_wrong() -> None:
    case = make_case()
    model = RHNLanguageModel(case.config)
    model.build((None, None))
    with pytest.raises(ValueError, match=r"missing softmax.bias; not expected none"):
        model.load_parameters({name: value for name, value in case.parameters.items() if name != "softmax.bias"})


def test_masks_of_another_batch_size_are_refused() -> None:
    case = make_case()
    model = RHNLanguageModel(case.config)
    for name in ("embedding", "output"):
        mask = getattr(case.masks, name)[:1]
        with pytest.raises(
            ValueError, match=rf"masks\.{name} of shape \(1, .\) is not accepted: expected shape \(3, .\)"
        ):
            model(case.tokens, masks=rhn.VariationalMasks(**{name: mask}))


def test_trains_with_fit() -> None:
    case = make_case(length=5)
    model = RHNLanguageModel(case.config, dtype="float64")
    model.build((None, None))
    model.load_parameters(case.parameters)
    # Only the logits have a loss; Keras takes the mean over the window as well.
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=[cross_entropy, None])
    losses = model.fit(case.tokens, [case.targets, None], epochs=3, verbose=0).history["loss"]
    expected = reference.loss(case.config, case.parameters, case.tokens, case.targets) / 5
    assert losses[0] == pytest.approx(expected, rel=1e-6)
    assert losses[2] < losses[0]


def test_generates_what_the_reference_does() -> None:
    config, parameters = generating_case()
    model = RHNLanguageModel(config)
    model.load_parameters(parameters)
    assert model.generate([1, 2], 10, seed=4, top_k=5) == GENERATED
    with pytest.raises(ValueError, match="temperature=0 is not accepted: expected a number above 0"):
        model.generate([1, 2], 10, temperature=0)
