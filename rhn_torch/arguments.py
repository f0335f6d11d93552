"""Checks of the layers' arguments, and the arguments' former names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from rhn.spec.arguments import refusal
from rhn.spec.masks import VariationalMasks

Function = TypeVar("Function", bound=Callable[..., Any])


def check_input(input: Tensor, input_size: int, dims: Sequence[int]) -> None:
    """Raise ValueError unless the input has an accepted number of axes, and `features` entries on the last."""
    if torch.jit.is_tracing():  # which would record the comparison
        return
    if input.dim() not in dims or input.shape[-1] != input_size:
        raise ValueError(
            f"input of shape {tuple(input.shape)} is not accepted: expected {' or '.join(map(str, dims))} axes with a"
            f" last axis of {input_size}"
        )


def check_state(hx: Tensor | None, expected: tuple[int, ...]) -> None:
    """Raise ValueError unless the state is None or has this shape."""
    if hx is not None and not torch.jit.is_tracing() and tuple(hx.shape) != expected:
        raise ValueError(f"hx of shape {tuple(hx.shape)} is not accepted: expected {expected}")


def check_dtype(name: str, tensor: Tensor, parameter: Tensor) -> None:
    """Raise ValueError unless the tensor has the parameter's dtype, or autocast converts it."""
    device_type = tensor.device.type
    if tensor.dtype == parameter.dtype:
        return
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return
    raise refusal(f"{name}.dtype", tensor.dtype, f"{parameter.dtype}, which the parameters have")


def check_cell_masks(
    masks: VariationalMasks,
    num_gates: int,
    batch_size: int,
    input_sizes: Sequence[int],
    hidden_size: int,
    length: int | None,
) -> None:
    """Raise ValueError unless every kind of mask that is given has one mask per cell: for inputs (M, B, E_i), or with a
    `length`, T, also (M, B, T, E_i); for states (M, B, H); for updates (B, H)."""
    widths = [hidden_size] * len(input_sizes)
    expected_features = {"input": input_sizes, "state": widths, "update": widths}
    for name, features in expected_features.items():
        of_cells = getattr(masks, name)
        if of_cells is None:
            continue
        if len(of_cells) != len(features):
            raise ValueError(
                f"masks.{name} of {len(of_cells)} entries is not accepted: expected one per layer and direction,"
                f" {len(features)}"
            )
        for i, (mask, width) in enumerate(zip(of_cells, features, strict=True)):
            shape = tuple(mask.shape)
            expected: list[tuple[int, ...]] = [(batch_size, width)]
            if name == "update":
                if shape != expected[0]:
                    raise ValueError(f"masks.update[{i}] of shape {shape} is not accepted: expected {expected[0]}")
                continue
            if name == "input" and length is not None:
                expected.append((batch_size, length, width))
            if shape[:1] not in ((1,), (num_gates,)) or shape[1:] not in expected:
                raise ValueError(
                    f"masks.{name}[{i}] of shape {shape} is not accepted: expected (M, {batch_size}, {width}) with M 1"
                    f" or {num_gates}"
                )


def renamed(**new_names: str) -> Callable[[Function], Function]:
    """Accept the keywords that a function's arguments had before version 0.2, too: `old="new"`."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **{new_names.get(name, name): value for name, value in kwargs.items()})

        return cast("Function", call)

    return decorate
