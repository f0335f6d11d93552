"""RHN: Recurrent Highway layers, stacked, over sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from rhn.spec.arguments import check_choice, check_flag, check_fraction, refusal
from rhn.spec.layers import LayerConfig, check_layer_parameters
from rhn.spec.masks import VariationalMasks
from rhn_jax.cell import Recurrence, RHNCell
from rhn_jax.fast_recurrence import fast_recurrence
from rhn_jax.recurrence import plain_recurrence
from rhn_jax.sequences import check_lengths, in_order_of_reading, valid_steps
from rhn_jax.weights import from_spec, mask_tensors, to_spec

RECURRENCES: dict[str, Recurrence] = {
    "fast": fast_recurrence,
    "plain": plain_recurrence,
    "recompute": partial(fast_recurrence, recompute=True),
}


class RHN(nnx.Module):
    """Recurrent Highway Network over a sequence, used like `nnx.RNN`.

    Zilly et al., "Recurrent Highway Networks", arXiv 1607.03474; SPEC.md section 7. Works in `nnx.Sequential` and
    `nnx.Bidirectional`. `with jax.default_matmul_precision(...)` sets the precision of its matrix products, in the
    backward pass too; a CPU always uses full precision.

    Args:
        input_size: number of input features E of the first layer.
        hidden_size: number of units H of every layer and direction.
        recurrence_depth: number of micro-steps L per time step.
        num_layers: number of stacked layers.
        bidirectional: every layer reads in both directions, each with its own weights; the outputs are concatenated,
            (..., 2H), the forward direction first. `nnx.Bidirectional` of two `RHN` joins whole stacks instead.
        time_major, return_carry, reverse, keep_order: defaults of the arguments of a call.
        drop_input, drop_state, drop_update: rates in [0, 1) of variational dropout (Gal and Ghahramani 2016): of a
            layer's input, of its state as the gates see it, and of its candidate h. In training (`deterministic` is
            False), every call draws masks with entries 0 or 1/keep from the stream `dropout` of `rngs`, one mask for
            each layer, direction and sequence.
        share_gate_masks: one mask for all gates (M = 1); otherwise one per gate (M = G).
        deterministic: True turns dropout off. `layer.train()` and `layer.eval()` change it, as in `nnx.Dropout`.
        recurrence: "fast" has a hand-written backward; "plain" is slower and has forward mode too; "recompute" is
            "fast" with less memory: it does not store the gates, and computes them again in the backward.
        couple_gates, activation, cell_options, rngs: see `RHNCell`, whose keyword arguments are all accepted.

    Attributes:
        config: the `rhn.spec.layers.LayerConfig`.
        cells: one `RHNCell` per layer and direction, which holds the parameters: layer by layer, forward first.

    Raises:
        ValueError: an option has a value that is not accepted.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        recurrence_depth: int = 5,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        time_major: bool = False,
        return_carry: bool = False,
        reverse: bool = False,
        keep_order: bool = False,
        drop_input: float = 0.0,
        drop_state: float = 0.0,
        drop_update: float = 0.0,
        share_gate_masks: bool = True,
        deterministic: bool = False,
        recurrence: str = "fast",
        couple_gates: bool = True,
        activation: str = "tanh",
        rngs: nnx.Rngs,
        **cell_options: Any,
    ) -> None:
        check_choice("recurrence", recurrence, RECURRENCES)
        check_flag("bidirectional", bidirectional)
        check_fraction("drop_input", drop_input)
        check_fraction("drop_state", drop_state)
        check_fraction("drop_update", drop_update)
        directions = "both" if bidirectional else "forward"
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
        self.time_major = time_major
        self.return_carry = return_carry
        self.reverse = reverse
        self.keep_order = keep_order
        self.recurrence = recurrence
        options = {"couple_gates": couple_gates, "activation": activation, "rngs": rngs, **cell_options}
        self.cells = nnx.List(
            RHNCell(cell.input_size, hidden_size, recurrence_depth, **options) for cell in self.config.cells()
        )
        # After the parameters, so that these are the same with dropout and without.
        self.input_dropout, self.state_dropout, self.update_dropout = (
            nnx.Dropout(rate, deterministic=deterministic, rngs=rngs if rate > 0 else None)
            for rate in (drop_input, drop_state, drop_update)
        )

    def __call__(
        self,
        inputs: ArrayLike,
        *carry_first: Any,
        initial_carry: Sequence[ArrayLike] | None = None,
        seq_lengths: ArrayLike | None = None,
        return_carry: bool | None = None,
        time_major: bool | None = None,
        reverse: bool | None = None,
        keep_order: bool | None = None,
        deterministic: bool | None = None,
        masks: VariationalMasks | None = None,
        rngs: nnx.Rngs | nnx.RngStream | None = None,
    ) -> Any:
        """The states of the top layer after every time step; with `return_carry` the last states of all layers first.

        Args:
            inputs: (B, T, E), or (T, B, E) if `time_major`. B stands for any number of batch axes, none included.
            initial_carry: one (B, H) per layer and direction, from which they start; None is `initialize_carry`.
            seq_lengths: (B,) valid time steps of each sequence, from 0 to T; None is T. Each is computed as if it were
                alone and cut to its length: outputs after its end are 0, and its last state is the one after its last
                valid step. Nothing depends on the padding.
            return_carry: return (carry, outputs).
            time_major: see `inputs`.
            reverse: read the valid time steps from the last to the first.
            keep_order: with `reverse`, outputs in the order of time; otherwise in the order of reading.
            deterministic: True is no dropout, False is dropout; None is the layer's own setting.
            masks: masks that replace dropout, of which `input`, `state` and `update` are used: per layer and direction
                (M, B, E_i), (M, B, H) and (B, H), M = 1 if the gates share a mask, else G. A layer that reads forwards
                also takes `input` per time step, (M, B, T, E_i).
            rngs: streams for the dropout masks and, with a `carry_init`, for the carry; None is the layer's own.

        Returns:
            outputs: (B, T, H), or (T, B, H); with both directions (..., 2H).
            carry: one (B, H) per layer and direction.

        Raises:
            TypeError: the carry comes first, as in version 0.1.
            ValueError: an argument has another shape, or `reverse` is asked of a layer with both directions.
        """
        if carry_first or inputs is None:
            raise TypeError("layer(carry, x) is now layer(x, initial_carry=carry, return_carry=True)")
        return_carry = self.return_carry if return_carry is None else return_carry
        time_major = self.time_major if time_major is None else time_major
        reverse = self.reverse if reverse is None else reverse
        keep_order = self.keep_order if keep_order is None else keep_order
        if reverse and self.config.directions == "both":
            raise refusal("reverse", reverse, "False, since the layer reads in both directions")
        inputs = jnp.asarray(inputs)
        if inputs.ndim < 2 or inputs.shape[-1] != self.config.input_size:
            raise ValueError(
                f"inputs of shape {inputs.shape} are not accepted: expected time, features and any batch axes, with"
                f" {self.config.input_size} features on the last axis"
            )
        time_axis = 0 if time_major else inputs.ndim - 2
        x = jnp.moveaxis(inputs, time_axis, 0)  # (T, B, E)
        batch = x.shape[1:-1]
        carry = self._start(initial_carry, batch, rngs)  # one (B, H) per layer and direction
        if masks is None:
            masks = self._draw_masks(batch, deterministic, rngs if isinstance(rngs, nnx.Rngs) else None)
        else:
            reads_forward = self.config.directions == "forward" and not reverse
            self._check_masks(masks, batch, x.shape[0] if reads_forward else None)
        masks = mask_tensors(masks, like=carry[0])
        valid = None
        if seq_lengths is not None:
            seq_lengths = check_lengths(seq_lengths, x.shape[0], batch)
            valid = valid_steps(x, seq_lengths)  # (T, B, 1)
            x = jnp.where(valid, x, 0)

        x, new_carry = self._read_layers(x, carry, masks, valid, reverse)  # (T, B, H), or (T, B, 2H)
        if valid is not None:
            x = jnp.where(valid, x, 0)
        if reverse and not keep_order:
            x = in_order_of_reading(x, seq_lengths)
        outputs = jnp.moveaxis(x, 0, time_axis)
        return (new_carry, outputs) if return_carry else outputs

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: nnx.Initializer | None = None,
    ) -> list[Array]:
        """The states before the first time step, (B, H) per layer and direction, for one step's inputs (B, E)."""
        return [cell.initialize_carry(input_shape, rngs, carry_init) for cell in self.cells]

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors of a layer of any port, by the names of `rhn.spec.layers.layer_parameter_shapes`.

        Raises:
            ValueError: they do not fit the layer.
        """
        check_layer_parameters(self.config, parameters)
        for cell, (prefix, _, _) in zip(self.cells, self.config.cells(), strict=True):
            names = ("input_weight", "recurrent_weight", "bias")
            from_spec(cell, {name: parameters[f"{prefix}.{name}"] for name in names})

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.layers`."""
        return {
            f"{prefix}.{name}": tensor
            for cell, (prefix, _, _) in zip(self.cells, self.config.cells(), strict=True)
            for name, tensor in to_spec(cell).items()
        }

    def _read_layers(
        self, x: Array, carry: list[Array], masks: VariationalMasks, valid: Array | None, reverse: bool
    ) -> tuple[Array, list[Array]]:
        """Outputs of the top layer, (T, B, H) or (T, B, 2H), in the order of time; the last states of all cells."""
        directions = (False, True) if self.config.directions == "both" else (reverse,)
        new_carry: list[Array] = []
        for _ in range(self.num_layers):
            outputs = []
            for backwards in directions:
                number = len(new_carry)  # of the cell
                states, last = self._read(number, x, carry[number], masks.of_layer(number), valid, backwards)
                outputs.append(states)
                new_carry.append(last)
            x = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)
        return x, new_carry

    def _read(
        self,
        number: int,
        x: Array,
        state: Array,
        masks: tuple[Array | None, Array | None, Array | None],
        valid: Array | None,
        backwards: bool,
    ) -> tuple[Array, Array]:
        """The states of one cell (T, B, H), in the order of time, and the last state that it reads (B, H)."""
        if backwards:  # then the padding comes first, and the state is held through it
            x, valid = jax.tree.map(lambda a: jnp.flip(a, axis=0), (x, valid))
        input_mask, state_mask, update_mask = masks  # (M, B, E_i), (M, B, H), (B, H)
        if input_mask is not None and input_mask.ndim == x.ndim + 1:
            input_mask = jnp.moveaxis(input_mask, -2, 1)  # (M, B, T, E_i) to (M, T, B, E_i)
        cell = self.cells[number]
        projected = cell.project(x, input_mask)  # (T, B, G*H)
        states = cell.recur(RECURRENCES[self.recurrence], projected, state, state_mask, valid, update_mask)  # (T, B, H)
        last = state if states.shape[0] == 0 else states[-1]
        return jnp.flip(states, axis=0) if backwards else states, last

    def _start(
        self,
        carry: Sequence[ArrayLike] | None,
        batch: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None,
    ) -> list[Array]:
        """The states from which the cells start, in the dtype of the computation."""
        if carry is None:
            carry = self.initialize_carry((*batch, self.config.input_size), rngs)
        shapes = [jnp.shape(state) for state in carry] if isinstance(carry, list | tuple) else jnp.shape(carry)
        expected = [(*batch, self.config.hidden_size)] * len(self.cells)
        if shapes != expected:
            raise ValueError(
                f"initial_carry of shapes {shapes} is not accepted: expected a list with one array per layer"
                f" and direction, {expected}"
            )
        return [cell.promote(state) for cell, state in zip(self.cells, carry, strict=True)]

    def _draw_masks(
        self, batch: tuple[int, ...], deterministic: bool | None, rngs: nnx.Rngs | None
    ) -> VariationalMasks:
        """Masks of 0 or 1/keep for every cell; None where nothing is dropped."""

        def draw(dropout: nnx.Dropout, widths: list[int], *masks: int) -> list[Array] | None:
            """Per cell (*masks, B, width)."""
            off = dropout.deterministic if deterministic is None else deterministic
            if off or dropout.rate == 0:
                return None
            shapes = [(*masks, *batch, width) for width in widths]
            return [dropout(jnp.ones(shape), deterministic=False, rngs=rngs) for shape in shapes]

        cells, num_masks = list(self.config.cells()), self.config.num_gate_masks
        hidden_sizes = [self.config.hidden_size] * len(cells)
        return VariationalMasks(
            input=draw(self.input_dropout, [cell.input_size for cell in cells], num_masks),
            state=draw(self.state_dropout, hidden_sizes, num_masks),
            update=draw(self.update_dropout, hidden_sizes),
        )

    def _check_masks(self, masks: VariationalMasks, batch: tuple[int, ...], length: int | None) -> None:
        """Raise ValueError unless there are (M, B, E_i), (M, B, H) and (B, H) for every cell; each may be None.

        With a `length`, T, input masks may also be (M, B, T, E_i).
        """
        cells = list(self.config.cells())
        of_state = [(*batch, self.config.hidden_size)] * len(cells)
        of_input = [(*batch, cell.input_size) for cell in cells]
        of_input_over_time = [(*batch, length, cell.input_size) for cell in cells]
        for name, expected in {"input": of_input, "state": of_state, "update": of_state}.items():
            given = getattr(masks, name)
            if given is None:
                continue
            shapes = [tuple(jnp.shape(mask)) for mask in given]
            leading = set() if name == "update" else {shape[:1] for shape in shapes}  # M of each
            found = [shape[len(leading) > 0 :] for shape in shapes]
            fits = found == expected or (name == "input" and found == of_input_over_time)
            if not (fits and leading <= {(1,), (self.config.num_gates,)}):
                before = () if name == "update" else (self.config.num_gate_masks,)
                raise ValueError(
                    f"masks.{name} of shapes {shapes} is not accepted: expected one mask per layer and direction,"
                    f" {[(*before, *shape) for shape in expected]}"
                )
