"""A Recurrent Highway Network by somebody else: plain PyTorch, written to be short, with no thought of speed."""

import torch

from rhn.spec.parameters import parameter_count

ACTIVATION = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}


class PlainModel:
    """See `rhn.backend.Model`."""

    def __init__(self, config, parameters, dtype):
        self.config, self.dtype = config, getattr(torch, dtype)
        self.parameter_count = parameter_count(config)
        self.last_grad_norm = torch.zeros(())
        self.load_parameters(parameters)

    def load_parameters(self, parameters):
        self.p = {name: self.tensor(value).requires_grad_() for name, value in parameters.items()}

    def parameters(self):
        return {name: value.detach().numpy().copy() for name, value in self.p.items()}

    def tensor(self, array):
        return torch.as_tensor(array).to(self.dtype, copy=True)

    def zero_state(self, batch_size):
        return [
            torch.zeros(batch_size, self.config.hidden_size, dtype=self.dtype) for _ in range(self.config.num_layers)
        ]

    def to_numpy(self, array):
        return array.detach().numpy()

    def run(self, tokens, state, masks):
        """Logits (B, T, V), and the state after the window."""
        tokens = torch.as_tensor(tokens).long()
        state = self.zero_state(len(tokens)) if state is None else [self.tensor(s).detach() for s in state]
        if masks and masks.carried is not None:
            state = [s * self.tensor(masks.carried)[:, None] for s in state]
        x = self.p["embedding"][tokens]  # (B, T, E)
        if masks and masks.embedding is not None:
            x = x * self.tensor(masks.embedding)[:, :, None]
        for i in range(self.config.num_layers):
            x = self.layer(i, x, state, masks)  # (B, T, H)
        if masks and masks.output is not None:
            mask = self.tensor(masks.output)
            x = x * (mask if mask.dim() == 3 else mask[:, None])
        if self.config.has_projection:
            x = x @ self.p["projection.weight"]  # (B, T, E)
        weight = self.p["embedding"].T if self.config.tie_weights else self.p["softmax.weight"]  # (H, V)
        return x @ weight + self.p["softmax.bias"], state

    def layer(self, i, x, state, masks):
        """Outputs (B, T, H) of layer `i`, which replaces its entry of `state`."""
        W, R, b = (self.p[f"layers.{i}.{name}"] for name in ("input_weight", "recurrent_weight", "bias"))
        nothing_dropped = torch.ones(1, 1, 1, dtype=self.dtype)
        input_masks = self.tensor(masks.input[i]) if masks and masks.input else nothing_dropped
        state_masks = self.tensor(masks.state[i]) if masks and masks.state else nothing_dropped
        update_mask = self.tensor(masks.update[i]) if masks and masks.update else nothing_dropped[0]
        s, outputs = state[i], []
        for time in range(x.shape[1]):
            for level in range(self.config.recurrence_depth):
                z = (s * state_masks) @ R[level] + b[level][:, None]  # (G, B, H); one mask is broadcast to all gates
                if level == 0:
                    now = input_masks[:, :, time] if input_masks.dim() == 4 else input_masks
                    z = z + (x[:, time] * now) @ W
                h, t = ACTIVATION[self.config.activation](z[0]), torch.sigmoid(z[1])  # (B, H)
                s = h * update_mask * t + s * (1 - t if self.config.couple_gates else torch.sigmoid(z[2]))
            outputs.append(s)
        state[i] = s
        return torch.stack(outputs, dim=1)

    def forward(self, tokens, state=None, masks=None):
        logits, new_state = self.run(tokens, state, masks)
        return self.to_numpy(logits), [self.to_numpy(s) for s in new_state]

    def log_likelihoods(self, tokens, targets, state, masks=None):
        logits, new_state = self.run(tokens, state, masks)
        targets = torch.as_tensor(targets).long()[..., None]
        return logits.log_softmax(-1).gather(-1, targets)[..., 0], new_state  # (B, T)

    def evaluate_step(self, tokens, targets, state, masks=None):
        scores, new_state = self.log_likelihoods(tokens, targets, state, masks)
        return -scores.sum(), new_state

    def differentiate(self, tokens, targets, state, masks, weight_decay):
        scores, new_state = self.log_likelihoods(tokens, targets, state, masks)
        loss = -scores.sum() / len(scores)
        decay = 0.5 * weight_decay * sum(p.square().sum() for p in self.p.values())
        return loss, torch.autograd.grad(loss + decay, list(self.p.values())), new_state

    def gradients(self, tokens, targets, state=None, masks=None, weight_decay=0.0):
        loss, grads, new_state = self.differentiate(tokens, targets, state, masks, weight_decay)
        named = {name: self.to_numpy(g) for name, g in zip(self.p, grads, strict=True)}
        return loss.item(), named, [self.to_numpy(s) for s in new_state]

    def train_step(self, tokens, targets, state, masks, learning_rate, weight_decay, max_grad_norm):
        loss, grads, new_state = self.differentiate(tokens, targets, state, masks, weight_decay)
        self.last_grad_norm = torch.cat([g.flatten() for g in grads]).norm()
        scale = max_grad_norm / self.last_grad_norm.clamp(min=max_grad_norm)
        with torch.no_grad():
            for p, g in zip(self.p.values(), grads, strict=True):
                p -= learning_rate * scale * g
        return loss.detach(), [s.detach() for s in new_state]


class PlainBackend:
    """See `rhn.backend.Backend`. It knows the paper's optimiser only."""

    name = "plain"

    def build(self, config, parameters, dtype="float32", device=None, recompute=False):
        return PlainModel(config, parameters, dtype)

    def describe(self):
        return {"torch": torch.__version__, "device": "cpu"}
