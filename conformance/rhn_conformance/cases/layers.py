"""Cases for layers outside of the language model (SPEC.md 7): sequences of different lengths, one direction or both.

They are only for backends with `build_layer`. The numbers are made as for the language models. Padding is as large as
the valid input, and the derivatives there are as large as elsewhere, so that a wrong use of padding shows.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from rhn.reference_backend import ReferenceBackend
from rhn.spec.layers import LayerConfig, layer_parameter_shapes
from rhn.spec.masks import VariationalMasks
from rhn.spec.random import Purpose, uniform
from rhn_conformance.case import Answers, Case, LayerInputs
from rhn_conformance.cases.numbers import float32
from rhn_conformance.checks import LAYER_CHECKS

# Indices of draws. Parameters, states and masks each count up from their own first index.
_PARAMETERS, _X, _D_OUTPUTS, _STATE, _D_STATE, _INPUT_MASK, _STATE_MASK, _UPDATE_MASK = range(0, 8000, 1000)
_KEEP = 0.5


@dataclass(frozen=True)
class LayerDescription:
    """Layers and one batch of sequences, without their numbers.

    Attributes:
        name: unique; the random numbers of the case are a function of it.
        clauses: numbers of SPEC.md.
        config: the architecture.
        lengths: valid time steps of each row; None gives no lengths.
        batch_size: B.
        length: T.
        given_state: start from a random state, not from zero.
        masked: there are masks of input, state and update.
    """

    name: str
    clauses: tuple[str, ...]
    config: LayerConfig
    lengths: tuple[int, ...] | None = None
    batch_size: int = 4
    length: int = 5
    given_state: bool = False
    masked: bool = False


_ONE = LayerConfig(input_size=4, hidden_size=6, recurrence_depth=2)
_LENGTHS = (3, 0, 5, 1)  # of one batch: some time steps, none, all, one

LAYER_DESCRIPTIONS = (
    LayerDescription("layer", ("7.1",), _ONE),
    LayerDescription("layer-two", ("7.1",), replace(_ONE, num_layers=2), given_state=True),
    LayerDescription("layer-lengths", ("7.2",), _ONE, _LENGTHS, given_state=True),
    LayerDescription("layer-reverse", ("7.3",), replace(_ONE, directions="reverse"), given_state=True),
    LayerDescription("layer-reverse-lengths", ("7.2", "7.3"), replace(_ONE, directions="reverse"), _LENGTHS),
    LayerDescription("layer-both", ("7.4", "7.5"), replace(_ONE, directions="both"), given_state=True),
    LayerDescription(
        "layer-both-lengths",
        ("7.2", "7.4"),
        replace(_ONE, directions="both", num_layers=2, activation="sigmoid"),
        _LENGTHS,
        given_state=True,
    ),
    LayerDescription("layer-masks-shared", ("7.6",), _ONE, given_state=True, masked=True),
    LayerDescription(
        "layer-everything",
        ("7.6",),
        replace(_ONE, directions="both", num_layers=2, couple_gates=False, share_gate_masks=False),
        _LENGTHS,
        given_state=True,
        masked=True,
    ),
)


def make_layer_inputs(description: LayerDescription) -> LayerInputs:
    """The numbers of `description`: a pure function of it, the same on every machine."""
    seed = zlib.crc32(description.name.encode())
    config, batch_size, length = description.config, description.batch_size, description.length
    cells = list(config.cells())
    state_shape = (batch_size, config.hidden_size)
    num_masks = config.num_gate_masks

    def draw(shape: tuple[int, ...], index: int) -> NDArray[np.float64]:
        """Uniform in (-1, 1)."""
        return float32(2.0 * uniform(seed, Purpose.GENERATION, shape, index=index) - 1.0)

    def mask(shape: tuple[int, ...], index: int) -> NDArray[np.float64]:
        return (uniform(seed, Purpose.GENERATION, shape, index=index) < _KEEP) / _KEEP

    masks = VariationalMasks(
        input=[mask((num_masks, batch_size, c.input_size), _INPUT_MASK + i) for i, c in enumerate(cells)],
        state=[mask((num_masks, *state_shape), _STATE_MASK + i) for i in range(len(cells))],
        update=[mask(state_shape, _UPDATE_MASK + i) for i in range(len(cells))],
    )
    shapes = layer_parameter_shapes(config)
    return LayerInputs(
        config=config,
        parameters={
            name: (0.7 * draw(shape, _PARAMETERS + i)).astype(np.float32)
            for i, (name, shape) in enumerate(shapes.items())
        },
        x=draw((batch_size, length, config.input_size), _X),
        d_outputs=draw((batch_size, length, config.output_size), _D_OUTPUTS),
        d_state=[draw(state_shape, _D_STATE + i) for i in range(len(cells))],
        state=[draw(state_shape, _STATE + i) for i in range(len(cells))] if description.given_state else None,
        lengths=None if description.lengths is None else np.array(description.lengths, np.int32),
        masks=masks if description.masked else None,
    )


@cache
def layer_answers(description: LayerDescription) -> Answers:
    """The reference's answers in float64; both dtypes are compared with them."""
    inputs = make_layer_inputs(description)
    layer = inputs.build(ReferenceBackend(), "float64", None)
    return {check.name: check.ask(layer, inputs) for check in LAYER_CHECKS}


def layer_cases() -> list[Case]:
    """All layer cases, from simple to composite."""
    return [
        Case(
            name=description.name,
            clauses=description.clauses,
            checks=LAYER_CHECKS,
            inputs=partial(make_layer_inputs, description),
            expected=partial(layer_answers, description),
            of_layers=True,
        )
        for description in LAYER_DESCRIPTIONS
    ]
