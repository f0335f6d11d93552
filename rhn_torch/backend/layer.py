"""`RHN` behind `rhn.backend.Layer`, for the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rhn.backend import State
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn_torch.layer import RHN
from rhn_torch.weights import layers_to_spec, to_device, to_numpy


class TorchLayer:
    """See `rhn.backend.Layer`. `module` is the `RHN` underneath."""

    def __init__(
        self, config: LayerConfig, parameters: Mapping[str, NDArray], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.config = config
        self.module = RHN(
            config.input_size,
            config.hidden_size,
            config.recurrence_depth,
            config.num_layers,
            batch_first=True,
            bidirectional=config.directions == "both",
            reverse=config.directions == "reverse",
            share_gate_masks=config.share_gate_masks,
            couple_gates=config.couple_gates,
            activation=config.activation,
            dtype=dtype,
            device=device,
        )
        self.module.load_parameters(parameters)
        self._dtype = dtype
        self._device = device

    def forward(
        self,
        x: ArrayLike,
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[NDArray, list[NDArray]]:
        hx = None if state is None else self._tensor(state)  # (cells, B, H)
        with torch.no_grad():
            outputs, h_n = self.module(self._tensor(x), hx, masks, lengths)
        return to_numpy(outputs), [to_numpy(h) for h in h_n]

    def gradients(
        self,
        x: ArrayLike,
        d_outputs: ArrayLike,
        d_state: Sequence[ArrayLike],
        state: State | None = None,
        lengths: ArrayLike | None = None,
        masks: VariationalMasks | None = None,
    ) -> tuple[dict[str, NDArray], NDArray, list[NDArray]]:
        x_tensor = self._tensor(x).requires_grad_()  # (B, T, E)
        d_h_n = self._tensor(d_state)  # (cells, B, H)
        hx = (torch.zeros_like(d_h_n) if state is None else self._tensor(state)).requires_grad_()  # (cells, B, H)
        results = self.module(x_tensor, hx, masks, lengths)
        parameters = dict(self.module.named_parameters())
        wanted = [x_tensor, hx, *parameters.values()]
        d_x, d_hx, *gradients = torch.autograd.grad(results, wanted, [self._tensor(d_outputs), d_h_n])
        named = layers_to_spec(self.config, dict(zip(parameters, gradients, strict=True)))
        return named, to_numpy(d_x), [to_numpy(d) for d in d_hx]

    def parameters(self) -> dict[str, NDArray]:
        return self.module.export_parameters()

    def _tensor(self, array: ArrayLike | Sequence[ArrayLike]) -> Tensor:
        """A copy on the device; the entries of a list are stacked."""
        if isinstance(array, list | tuple):
            return torch.stack([self._tensor(entry) for entry in array])
        return to_device(array, self._dtype, self._device).clone()
