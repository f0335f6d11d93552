"""RHN: Recurrent Highway layers, stacked, over a window of time steps, in one direction or in both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rhn.spec.arguments import check_choice, check_flag, check_fraction
from rhn.spec.layers import LayerConfig
from rhn.spec.masks import VariationalMasks
from rhn_torch.arguments import check_cell_masks, check_dtype, check_input, check_state, renamed
from rhn_torch.cell import RHNCell
from rhn_torch.fast_recurrence import fast_recurrence
from rhn_torch.programs.exported import exported_recurrence
from rhn_torch.recurrence import plain_recurrence
from rhn_torch.sequences import (
    in_reading_order,
    last_states,
    length_tensor,
    permute_rows,
    valid_steps,
    without_padding,
)
from rhn_torch.weights import layers_from_spec, layers_to_spec, mask_tensors


def _triton_recurrence(*arguments: Any, padding: Tensor | None = None) -> Tensor:
    """`triton_recurrence`, imported where it is used: Triton is heavy, and not everywhere."""
    if padding is not None:  # its kernels take none
        return partial(fast_recurrence, padding=padding)(*arguments)
    try:
        from rhn_torch.gpu.triton_recurrence import triton_recurrence
    except ModuleNotFoundError as error:
        raise ImportError(
            "recurrence='triton' needs the package triton, which comes with PyTorch for NVIDIA GPUs"
        ) from error
    return triton_recurrence(*arguments)


RECURRENCES: dict[str, Callable[..., Tensor]] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
    "triton": _triton_recurrence,
}


class RHN(nn.Module):
    """Recurrent Highway Network over a sequence, used like `nn.GRU`.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474; SPEC.md section 7.

    Args:
        input_size: number of input features E of the first layer.
        hidden_size: number of units H of every layer and direction.
        recurrence_depth: number of micro-steps L per time step.
        num_layers: number of stacked layers.
        batch_first: input and output are (B, T, features) instead of (T, B, features). States are not affected.
        bias: see `RHNCell`.
        dropout: in training, probability of dropping each value of a layer's output, except for the last layer.
        bidirectional: every layer reads in both directions, each with its own weights; outputs are (..., 2*H).
        reverse: the layer reads from the last time step to the first. Outputs are in the order of time.
        drop_input, drop_state, drop_update: in training, probability of dropping each feature of a cell's input, each
            unit of its state, and each unit of its candidate h, for a whole sequence (variational dropout). Masks are
            drawn by torch's generator for every call, layer, direction and row, and are constant over time and
            micro-steps.
        share_gate_masks: all gates drop the same units; otherwise each gate drops its own.
        couple_gates, activation, init_scale, transform_bias, device, dtype: see `RHNCell`.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has derivatives of any order; "recompute"
            is "fast" with less memory: it does not store the gates, and computes them again in the backward;
            "triton" is "fast" with kernels for NVIDIA GPUs, in float32, and needs the package triton.

    Attributes:
        cells: one `RHNCell` per layer, which holds the layer's parameters.
        reverse_cells: one `RHNCell` per layer for the reverse direction, if `bidirectional`; else empty.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int = 5,
        num_layers: int = 1,
        batch_first: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        reverse: bool = False,
        drop_input: float = 0.0,
        drop_state: float = 0.0,
        drop_update: float = 0.0,
        share_gate_masks: bool = True,
        couple_gates: bool = True,
        activation: str = "tanh",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        recurrence: str = "fast",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, flag in {"batch_first": batch_first, "bidirectional": bidirectional, "reverse": reverse}.items():
            check_flag(name, flag)
        rates = {"drop_input": drop_input, "drop_state": drop_state, "drop_update": drop_update}
        for name, rate in {"dropout": dropout, **rates}.items():
            check_fraction(name, rate)
        check_choice("recurrence", recurrence, RECURRENCES)
        if bidirectional and reverse:
            raise ValueError("reverse=True is not accepted with bidirectional=True: both directions are read then")
        if dropout and num_layers == 1:
            warnings.warn(f"dropout={dropout} has no effect: it acts between layers, and there is one", stacklevel=2)
        directions = "both" if bidirectional else "reverse" if reverse else "forward"
        self.config = LayerConfig(
            input_size,
            hidden_size,
            recurrence_depth,
            num_layers,
            directions,
            couple_gates,
            share_gate_masks,
            activation,
        )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.recurrence_depth = recurrence_depth
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.bias = bias
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.reverse = reverse
        self.drop_input = drop_input
        self.drop_state = drop_state
        self.drop_update = drop_update
        self.recurrence = recurrence
        options: dict[str, Any] = {
            "couple_gates": couple_gates,
            "activation": activation,
            "init_scale": init_scale,
            "transform_bias": transform_bias,
            "device": device,
            "dtype": dtype,
        }

        def make_cells(is_there: bool) -> Sequence[RHNCell]:
            widths = [input_size, *[self.config.output_size] * (num_layers - 1)] if is_there else []
            cells = nn.ModuleList(RHNCell(width, hidden_size, recurrence_depth, bias, **options) for width in widths)
            return cast("Sequence[RHNCell]", cells)  # nn.ModuleList does not say what it holds

        self.cells = make_cells(True)
        self.reverse_cells = make_cells(bidirectional)

    def reset_parameters(self) -> None:
        """Draw new initial values of all parameters."""
        for cell, _ in self._cells():
            cell.reset_parameters()

    @renamed(x="input", h_0="hx")
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        masks: VariationalMasks | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Any, Tensor]:
        """States of the top layer after every time step, and of every layer and direction after its last.

        Args:
            input: (T, B, E), or (B, T, E) with `batch_first`; or one sequence (T, E); or a `PackedSequence`.
            hx: states before the window, (num_layers * D, B, H) with D = 2 if `bidirectional`, else 1, layer by layer,
                the forward direction first; (num_layers * D, H) for one sequence. None is zero.
            masks: masks of variational dropout, which are used instead of drawn masks: `input` (M, B, E_i), `state`
                (M, B, H) and `update` (B, H), one per layer and direction, M = 1 if the gates share a mask, else G.
                Tensors or NumPy arrays. A layer that reads forwards also takes `input` per time step, (M, B, T, E_i).
            lengths: (B,) valid time steps of each row, 0 to T; None is T. Each row is computed as if it were alone and
                cut to its length; outputs after its end are 0.

        Returns:
            output: (T, B, D*H), or as the input has it.
            h_n: (num_layers * D, B, H), or as hx has it: the state after the last valid time step.

        Raises:
            ValueError: an argument has another shape or dtype.
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths are not accepted with a PackedSequence: it has its own")
            return self._forward_packed(input, hx, masks)
        if input.is_nested:
            raise ValueError(
                "a nested tensor is not accepted as input: expected a padded tensor and lengths, which"
                " torch.nested.to_padded_tensor(input, 0.0) and input.offsets().diff() give"
            )
        check_input(input, self.input_size, (2, 3))
        if input.dim() == 2:
            if lengths is not None:
                raise ValueError("lengths are not accepted with one sequence: cut it instead")
            output, h_n = self._forward(input.unsqueeze(1), None if hx is None else hx.unsqueeze(1), masks, None)
            return output.squeeze(1), h_n.squeeze(1)
        if self.batch_first:
            output, h_n = self._forward(input.transpose(0, 1), hx, masks, lengths)
            return output.transpose(0, 1), h_n
        return self._forward(input, hx, masks, lengths)

    def _forward_packed(
        self, packed: PackedSequence, hx: Tensor | None, masks: VariationalMasks | None
    ) -> tuple[PackedSequence, Tensor]:
        """As `forward`, for packed sequences. Rows are computed in the packed order: the longest first."""
        data, batch_sizes, order, order_back = packed
        x, lengths = pad_packed_sequence(PackedSequence(data, batch_sizes))  # (T, B, E), (B,)
        output, h_n = self._forward(x, *permute_rows(hx, masks, order), lengths)
        new_data = pack_padded_sequence(output, lengths).data
        new_hx, _ = permute_rows(h_n, None, order_back)
        return PackedSequence(new_data, batch_sizes, order, order_back), cast("Tensor", new_hx)

    def _forward(
        self,
        x: Tensor,
        hx: Tensor | None,
        masks: VariationalMasks | None,
        lengths: Tensor | Sequence[int] | None,
    ) -> tuple[Tensor, Tensor]:
        """As `forward`, with the time axis first and a batch axis."""
        cells = list(self._cells())
        (length, batch_size, _), weight = x.shape, cells[0][0].input_weight
        if not torch.jit.is_tracing() and length == 0:
            raise ValueError("input of 0 time steps is not accepted: expected at least 1")
        check_state(hx, (len(cells), batch_size, self.hidden_size))
        check_dtype("input", x, weight)
        masks = self._draw_masks(x) if masks is None else mask_tensors(masks, like=weight)
        length_of_masks = length if self.config.directions == "forward" else None
        input_sizes = [cell.input_size for cell, _ in cells]
        check_cell_masks(masks, self.config.num_gates, batch_size, input_sizes, self.hidden_size, length_of_masks)
        valid = None
        if lengths is not None:
            lengths = length_tensor(lengths, length, batch_size, x.device)  # (B,)
            valid = valid_steps(lengths, length)  # (T, B, 1)
        recurrence = self._recurrence()
        if valid is not None and self.config.activation == "relu":
            recurrence = partial(recurrence, padding=~valid)

        x = without_padding(x, valid)
        h_n: list[Tensor] = []
        for layer in range(self.num_layers):
            outputs = []
            for cell, is_reverse in cells[len(h_n) : len(h_n) + self.config.num_directions]:
                h = None if hx is None else hx[len(h_n)]  # (B, H)
                read = in_reading_order(x, lengths) if is_reverse else x  # (T, B, E_i)
                states = cell(read, h, *masks.of_layer(len(h_n)), recurrence)  # (T, B, H)
                h_n.append(last_states(states, h, lengths))  # (B, H)
                states = without_padding(states, valid)
                outputs.append(in_reading_order(states, lengths) if is_reverse else states)
            x = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]  # (T, B, D*H)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, torch.stack(h_n)

    def _cells(self) -> Iterator[tuple[RHNCell, bool]]:
        """Every cell and whether it reads in reverse, layer by layer, the forward direction first."""
        for layer, cell in enumerate(self.cells):
            yield cell, self.reverse
            if self.bidirectional:
                yield self.reverse_cells[layer], True

    def _recurrence(self) -> Callable[..., Tensor]:
        """The function that computes a window. Exported and traced programs need no hand-written backward."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return exported_recurrence
        return RECURRENCES[self.recurrence]

    def _draw_masks(self, x: Tensor) -> VariationalMasks:
        """Masks drawn from the drop rates, for the rows of x (T, B, E). In evaluation nothing is dropped."""
        num_masks, batch_size = self.config.num_gate_masks, x.shape[1]

        def draw(rate: float, widths: Sequence[int], *masks: int) -> list[Tensor] | None:
            """Per cell (*masks, B, width) of 0 or 1/keep."""
            if not (rate and self.training):
                return None
            dtype = self.cells[0].input_weight.dtype
            return [F.dropout(x.new_ones(*masks, batch_size, width, dtype=dtype), rate) for width in widths]

        cells = [cell for cell, _ in self._cells()]
        hidden_sizes = [cell.hidden_size for cell in cells]
        return VariationalMasks(
            input=draw(self.drop_input, [cell.input_size for cell in cells], num_masks),
            state=draw(self.drop_state, hidden_sizes, num_masks),
            update=draw(self.drop_update, hidden_sizes),
        )

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors of a layer of any port, by the names of `rhn.spec.layers.layer_parameter_shapes`.

        Raises:
            ValueError: the tensors do not fit, or the layer has no biases and some given biases are not zero.
        """
        values = layers_from_spec(self.config, parameters)
        own = dict(self.named_parameters())
        for name, value in values.items():
            if name not in own and value.any():
                raise ValueError("biases that are not zero are not accepted by a layer with bias=False")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(values[name])

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters as `load_parameters` takes them; zeros if the layer has no biases."""
        return layers_to_spec(self.config, dict(self.named_parameters()))

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of every layer and direction, as `nn.GRU` lists them."""
        return [list(cell.parameters()) for cell, _ in self._cells()]

    def flatten_parameters(self) -> None:
        """Nothing; it is here for code that calls it on every recurrent layer."""

    def __prepare_scriptable__(self) -> NoReturn:
        raise NotImplementedError(
            "torch.jit.script is not supported by RHN: use torch.compile, torch.export or torch.jit.trace"
        )

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, recurrence_depth={self.recurrence_depth}"
        defaults = {
            "num_layers": 1,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "reverse": False,
            "drop_input": 0.0,
            "drop_state": 0.0,
            "drop_update": 0.0,
            "recurrence": "fast",
        }
        for name, default in defaults.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        return text
