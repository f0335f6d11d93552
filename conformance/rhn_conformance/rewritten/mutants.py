"""Mutants: the reference with one mistake each. Does the suite notice the mistake, and does it name the broken clause?

Each mistake is one that some implementation of Recurrent Highway Networks has made, or might make. A mutant runs as a
backend; the first check that it fails must name the clause that it breaks.

What no backend computes has no mutants: initial values (SPEC.md 1.4, 1.6) and window lengths (4.12) are drawn by the
same NumPy code for all. tests/spec/test_parameters.py and tests/spec/test_windows.py compare the draws with their
distributions.
"""

from __future__ import annotations

from rhn.backend import Backend
from rhn_conformance.rewritten.rewrite import Edit, rewritten_reference


class Mutant:
    """A mistake.

    Attributes:
        name: name of the backend with this mistake.
        clause: the broken clause of SPEC.md.
        edits: changes of the reference's source text.
    """

    def __init__(self, name: str, clause: str, *edits: Edit) -> None:
        self.name = name
        self.clause = clause
        self.edits = edits

    def backend(self) -> Backend:
        """The reference with the mistake."""
        return rewritten_reference(self.name, self.edits)


def _in(line: str, old: str, new: str) -> Edit:
    """In the one place where `line` stands, `old` becomes `new`."""
    return line, line.replace(old, new)


# Lines of the reference, or parts of them, in which mistakes are made.
_H_GATE = "h = ACTIVATION[activation](z[0])"
_T_GATE = "t = sigmoid(z[1])"
_C_GATE = "c = 1.0 - t if num_gates == 2 else sigmoid(z[2])  #"
_UPDATE = "s = h * kept * t + s * c  #"
_RECURRENT = "z_gate = u @ weights.recurrent[level, gate] + weights.bias[level, gate]"
_MASKED_STATE = "u = s * _mask_of_gate(state_mask, gate)"
_MASK_OF_GATE = "return mask[gate] if len(mask) > 1 else mask[0]"
_MASKS_OF_LAYER = "update_mask = masks.of_layer(i)"
_MASKED_EMBEDDING = "x = x * masks.embedding[:, :, None]"
_MASKED_OUTPUT = "unprojected = x if masks.output is None else x * _over_time(masks.output)"
_NEW_STATE = "new_state.append(outputs[:, -1])"
_LOSS = "data_loss = cross_entropy(trace.logits, targets).sum() / batch_size"
_EMBEDDING_GRADIENT = 'np.add.at(grads["embedding"], trace.tokens, d_x)'
_RETURNED = "return float(data_loss), {name: grads[name] + weight_decay * value for name, value in p.items()}"
_STEP = "new[name] = (p - learning_rate * direction) * (1.0 - shrink)"
_SCALED = "scaled = {name: scale * g for name, g in grads.items()}"
_SCALE = "scale = max_grad_norm / max(global_norm(grads), max_grad_norm)"
_LIMITED = "return {name: np.clip(g, -max_grad_value, max_grad_value) for name, g in scaled.items()}"
_MOMENTUM = 'direction = optimizer.momentum * state.get(f"momentum.{name}", 0.0) + direction'
_NORM = "self.last_grad_norm = reference.global_norm(grads)"
_NLL = "return reference.cross_entropy(logits, targets).sum(), new_state"
_LOADED = "np.array(parameters[name], np.float64) for name in parameter_shapes"

# Lines of several processes.
_SHARE = "share = own / batch_size"
_SUM = "total = {name: total[name] + share * g for name, g in grads.items()}"
_SUMMED = "with_decay = {name: g + weight_decay * np.asarray(parameters[name])"
_OWN_MASKS = "masks.rows(rows)"

# Lines of the layers on their own.
_LENGTHS = "row_lengths = [length] * batch_size if lengths is None else"
_VALID = "valid = _in_reading_order(x[row : row + 1, :length], cell)"
_ROW_OUTPUTS = "outputs[row, :length] = _in_reading_order(row_outputs, cell)[0]"
_LAST = "last[row] = row_outputs[0, -1]"
_ORDER = "return sequence[:, ::-1] if cell.reverse else sequence"
_SIDE_BY_SIDE = "x = np.concatenate(outputs_of_layer, axis=-1)"
_BEFORE = "before = np.zeros((batch_size, config.hidden_size)) if state is None else np.asarray(state[number])"
_CELL_CALL = "_cell_forward(config, cell, weights, x, before, row_lengths, masks.of_layer(number))"
_RUN_ON = "x[row : row + 1], cell), state[row : row + 1], input_mask, state_mask, config.activation)[0][0, -1]"
_LAYER_LOADED = "np.array(parameters[name], np.float64) for name in layer_parameter_shapes"
_STATE_MASK_OF_ROW = "np.asarray(state_mask)[:, row : row + 1]"
_OTHER_DIRECTION = "number + config.num_directions - 1 - 2 * direction"

MUTANTS: tuple[Mutant, ...] = (
    # Gates
    Mutant("h and t in the other order", "1.2", _in(_H_GATE, "z[0]", "z[1]"), _in(_T_GATE, "z[1]", "z[0]")),
    Mutant("t and c swapped", "2.4", _in(_UPDATE, "kept * t + s * c", "kept * c + s * t")),
    Mutant("masked carry", "2.4", _in(_UPDATE, "s * c", "s * c * _mask_of_gate(state_mask, 0)")),
    Mutant("tanh whatever the activation", "2.4", _in(_H_GATE, "ACTIVATION[activation]", "np.tanh")),
    Mutant("c = sigmoid(1 - t)", "2.5", _in(_C_GATE, "1.0 - t", "sigmoid(1.0 - t)")),
    Mutant("c dropped", "2.5", _in(_UPDATE, "s * c", "s")),
    Mutant("coupled where uncoupled is asked", "2.6", _in(_C_GATE, "sigmoid(z[2])", "1.0 - t")),
    # Micro-steps
    Mutant("transposed R", "2.2", _in(_RECURRENT, "[level, gate] +", "[level, gate].T +")),
    Mutant("R shared by all micro-steps", "2.2", _in(_RECURRENT, "recurrent[level", "recurrent[0")),
    Mutant("bias of the first micro-step only", "2.2", _in(_RECURRENT, "+ weights", "+ (level == 0) * weights")),
    Mutant(
        "x fed to all micro-steps",
        "2.3",
        ("if level == 0:\n                    z_gate", "if True:\n                    z_gate"),
    ),
    Mutant(
        "two biases in the count",
        "1.3",
        ("= parameter_count(config)", "= parameter_count(config) + 2 * config.hidden_size"),
    ),
    Mutant("backward stops at the time step", "2.2", ("d_s = d_s + d_outputs[:, time]", "d_s = d_outputs[:, time]")),
    # Masks
    Mutant(
        "masks redrawn per time step",
        "4.3",
        _in(_MASKED_STATE, "_mask_of_gate(state_mask, gate)", "np.roll(_mask_of_gate(state_mask, gate), time)"),
    ),
    Mutant(
        "masks redrawn per micro-step",
        "4.3",
        _in(_MASKED_STATE, "_mask_of_gate(state_mask, gate)", "np.roll(_mask_of_gate(state_mask, gate), level)"),
    ),
    Mutant(
        "input masks of the first layer only",
        "4.3",
        _in(_MASKS_OF_LAYER, "= masks", "= (masks if i == 0 else masks._replace(input=None))"),
    ),
    Mutant("shared masks where separate are asked", "4.4", (_MASK_OF_GATE, "return mask[0]")),
    Mutant("separate masks where shared are asked", "4.4", _in(_MASK_OF_GATE, "mask[0]", "np.roll(mask[0], gate)")),
    Mutant("masks not scaled by 1/keep", "4.1", _in(_MASKED_EMBEDDING, "masks.embedding[", "(masks.embedding > 0)[")),
    Mutant("embedding mask of the first row for all", "4.2", _in(_MASKED_EMBEDDING, "[:, :, None]", "[:1, :, None]")),
    Mutant("output not masked", "4.5", (_MASKED_OUTPUT, "unprojected = x")),
    Mutant(
        "output mask reaches the state",
        "4.5",
        _in(_NEW_STATE, "[:, -1]", "[:, -1] * (1.0 if masks.output is None else masks.output)"),
    ),
    Mutant(
        "masks kept from the window before",
        "4.6",
        ("in_loss = 0.0 if", "masks = vars(self).setdefault('first_masks', masks)\n        in_loss = 0.0 if"),
    ),
    Mutant("update mask on the carry", "4.9", _in(_UPDATE, "h * kept * t + s * c", "(h * t + s * c) * kept")),
    Mutant("update mask not in the gradient of t", "4.9", ("d_s * (h * kept - s)", "d_s * (h - s)")),
    Mutant("mask of the first time step for all", "4.10", ("mask[:, :, time] if mask", "mask[:, :, 0] if mask")),
    Mutant("other rows are reset", "4.11", ("masks.carried[:, None]", "masks.carried[::-1, None]")),
    # State
    Mutant("state not handed over", "3.2", ("if state is None else [np.asarray(s", "if True else [np.asarray(s")),
    Mutant("layers share a state", "2.7", _in("weights, x, carried * np.asarray(state[i])", "state[i]", "state[0]")),
    Mutant(
        "rows leak into each other",
        "3.3",
        _in(_NEW_STATE, "outputs[:, -1]", "outputs[:, -1] + 1e-6 * (outputs[:, -1] - outputs[:, -1].mean(axis=0))"),
    ),
    # Softmax and loss
    Mutant("projection is not trained", "2.10", ('= np.einsum("bth,bte->he"', '= 0.0 * np.einsum("bth,bte->he"')),
    Mutant("missing tying", "2.9", ('grads["embedding"] += d_softmax_weight.T', "pass")),
    Mutant("mean instead of sum over time", "5.1", _in(_LOSS, ".sum()", ".mean(axis=1).sum()")),
    Mutant("sum instead of mean over the batch", "5.1", _in(_LOSS, " / batch_size", "")),
    Mutant("evaluation is a mean over the batch", "5.6", _in(_NLL, ".sum()", ".mean(axis=0).sum()")),
    Mutant(
        "softmax overflows", "6.2", ("shifted = logits - logits.real.max(axis=-1, keepdims=True)", "shifted = logits")
    ),
    # Gradients and update
    Mutant(
        "repeated tokens overwrite each other", "5.3", (_EMBEDDING_GRADIENT, 'grads["embedding"][trace.tokens] = d_x')
    ),
    Mutant(
        "weight decay in the reported loss",
        "5.2",
        _in(_RETURNED, "float(data_loss)", "float(loss(config, p, tokens, targets, state, masks, weight_decay))"),
    ),
    Mutant(
        "biases do not decay", "5.2", _in(_RETURNED, "weight_decay *", "weight_decay * (not name.endswith('bias')) *")
    ),
    Mutant(
        "clip before decay",
        "5.3",
        (_NORM, f"grads = {{n: g - in_loss * self._parameters[n] for n, g in grads.items()}}\n        {_NORM}"),
        _in(_STEP, "(p -", "(p * (1.0 - learning_rate * weight_decay) -"),
    ),
    Mutant(
        "norm of each tensor",
        "5.4",
        _in(_SCALED, "scale *", "max_grad_norm / max(global_norm({name: g}), max_grad_norm) *"),
    ),
    Mutant("clipping always on", "5.4", _in(_SCALE, "max(global_norm(grads), max_grad_norm)", "global_norm(grads)")),
    Mutant(
        "clip by value before the norm",
        "5.4",
        (
            _SCALE,
            "most = max_grad_value or 9e9\n"
            f"    grads = {{n: np.clip(g, -most, most) for n, g in grads.items()}}\n    {_SCALE}",
        ),
    ),
    Mutant("no clip by value", "5.4", (_LIMITED, "return scaled")),
    Mutant("ascent", "5.5", _in(_STEP, "- learning_rate", "+ learning_rate")),
    Mutant(
        "Adam without bias correction",
        "5.7",
        ("mean_unbiased = mean / (1 - optimizer.beta1**step)", "mean_unbiased = mean"),
    ),
    Mutant(
        "decoupled decay scaled by the rate",
        "5.8",
        _in(_STEP, "1.0 - shrink", "1.0 - learning_rate * shrink"),
    ),
    Mutant(
        "average includes the start",
        "5.9",
        ('steps = int(state["averaged_steps"]) + 1', 'steps = int(state["averaged_steps"]) + 2'),
    ),
    Mutant(
        "activations regularised without their mask",
        "5.11",
        ("activation_regularization / units * trace.unprojected", "activation_regularization / units * trace.outputs"),
    ),
    Mutant(
        "first output regularised as a change from zero",
        "5.11",
        (
            "d_changes = 2.0 * temporal_activation_regularization / units * np.diff(trace.outputs, axis=1)",
            "d_top[:, 0] += 2.0 * temporal_activation_regularization / units * trace.outputs[:, 0]\n"
            "        d_changes = 2.0 * temporal_activation_regularization / units * np.diff(trace.outputs, axis=1)",
        ),
    ),
    Mutant("padding read", "3.5", ("steps = slice(0, length)", "steps = slice(0, length + 1)")),
    Mutant("momentum damped", "5.10", _in(_MOMENTUM, "+ direction", "+ (1.0 - optimizer.momentum) * direction")),
    # Several processes
    Mutant("processes average their means", "9.1", _in(_SHARE, "/ batch_size", "/ batch_size / processes")),
    Mutant("processes divide by their own rows", "9.1", _in(_SHARE, "own / batch_size", "1.0")),
    Mutant(
        "clip before the sum over processes",
        "9.1",
        ("    processes: int,\n", "    processes: int,\n    max_grad_norm: float,\n"),
        ("self._shares, self.config", "self._shares, max_grad_norm, self.config"),
        _in(_SUM, "share * g", "share * g * max_grad_norm / max(global_norm(grads), max_grad_norm)"),
    ),
    Mutant("every process adds the decay", "9.1", _in(_SUMMED, "+ weight_decay", "+ processes * weight_decay")),
    Mutant("masks of the first process for all", "9.1", _in(_OWN_MASKS, "rows(rows)", "rows(slice(own))")),
    # Layers on their own
    Mutant("state before a layer ignored", "7.1", _in(_BEFORE, "state is None", "True")),
    Mutant("layers start from one state", "7.1", _in(_BEFORE, "state[number]", "state[0]")),
    Mutant("no gradient through the last state", "7.1", ("d_valid[0, -1] += d_last[row]", "pass")),
    Mutant("no gradient of the state before", "7.1", ("d_state[row] = gradients.state[0]", "d_state[row] = 0.0")),
    Mutant("lengths ignored", "7.2", _in(_LENGTHS, "lengths is None", "True")),
    Mutant(
        "state runs on through the padding",
        "7.2",
        (_LAST, f"last[row] = layer_forward(weights, _in_reading_order({_RUN_ON}"),
    ),
    Mutant(
        "last state held in the outputs after the end",
        "7.2",
        (_ROW_OUTPUTS, f"outputs[row] = row_outputs[0, -1]\n        {_ROW_OUTPUTS}"),
    ),
    Mutant(
        "a row of length 0 ends in zero",
        "7.2",
        ("last = np.array(state, dtype)", "last = 0.0 * state"),
    ),
    Mutant("gradient of a held state lost", "7.2", ("d_state = np.array(d_last)", "d_state = np.zeros_like(d_last)")),
    Mutant("gradient reaches the padding", "7.2", ("d_x = np.zeros_like(trace.x)", "d_x = np.ones_like(trace.x)")),
    Mutant(
        "reverse begins in the padding",
        "7.2",
        _in(_VALID, ", :length], cell)", "], cell)[:, :length]"),
    ),
    Mutant("reverse reads forward", "7.3", (_ORDER, "return sequence")),
    Mutant(
        "outputs of reverse in reading order",
        "7.3",
        _in(_ROW_OUTPUTS, "_in_reading_order(row_outputs, cell)", "row_outputs"),
    ),
    Mutant("last state of reverse at the last time", "7.3", (_LAST, "last[row] = outputs[row, length - 1]")),
    Mutant("directions swapped in the outputs", "7.4", _in(_SIDE_BY_SIDE, "of_layer", "of_layer[::-1]")),
    Mutant(
        "states direction by direction",
        "7.4",
        _in(_BEFORE, "state[number]", "state[direction * config.num_layers + layer]"),
    ),
    Mutant("weights of the other direction", "7.5", _in(_LAYER_LOADED, "[name]", "[name.replace('.reverse', '')]")),
    Mutant("layers not masked", "7.6", _in(_CELL_CALL, "masks.of_layer(number)", "NO_MASKS.of_layer(number)")),
    Mutant("masks of the other direction", "7.6", _in(_CELL_CALL, "of_layer(number)", f"of_layer({_OTHER_DIRECTION})")),
    Mutant(
        "masks of the first row for all",
        "7.6",
        _in(_STATE_MASK_OF_ROW, "row : row + 1", ":1"),
    ),
    # Parameters
    Mutant("parameters altered by 1e-8", "1.5", _in(_LOADED, " for", " * (1.0 + 1e-8) for")),
)
