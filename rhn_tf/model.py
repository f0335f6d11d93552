"""RHNLanguageModel: embedding, RHN layers, softmax."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from numpy.typing import NDArray

from rhn.checkpoint import load_language_model
from rhn.port_tools import NO_REGULARIZATION, Regularization, Window
from rhn.sampling import sample_tokens
from rhn.spec.config import RHNConfig
from rhn.spec.masks import VariationalMasks
from rhn.spec.parameters import check_parameters
from rhn_tf.layer import RHN
from rhn_tf.loss import cross_entropy
from rhn_tf.precision import Precision
from rhn_tf.weights import check_mask, from_spec, mask_tensors, to_spec

_OPTIONS_OF_RHN = ("recurrence", "init_scale", "transform_bias", "matmul_dtype")


class Top(NamedTuple):
    """The outputs of the layers, before the softmax.

    Attributes:
        masked: (B, T, H).
        outputs: (B, T, H), not masked.
        state: per layer (B, H), the state after the window.
    """

    masked: tf.Tensor
    outputs: tf.Tensor
    state: list[tf.Tensor]


@keras.saving.register_keras_serializable(package="rhn_tf")
class RHNLanguageModel(keras.Model):
    """Language model of Zilly et al., arXiv 1607.03474, section 5.

    `fit` and `evaluate` apply the loss to the logits. Keras averages the loss over the window as well.

    Args:
        config: the architecture.
        recurrence, init_scale, transform_bias, matmul_dtype: see `RHN`. The softmax projection is a matrix product too.
        return_state: return the last state of every layer beside the logits.
        kwargs: arguments of `keras.Model`; `dtype` may be a policy such as "mixed_bfloat16".

    Attributes:
        embedding: (V, E); also the softmax weight if weights are tied.
        rhn: the `RHN` between embedding and softmax.
        softmax_weight: (H, V), or None if tied.
        softmax_bias: (V,).
        projection_weight: (H, E) between the top layer and the softmax, if weights are tied and E differs from H;
            else None.
        precision: precision of the product with the softmax weight; each cell holds its own.
    """

    def __init__(
        self,
        config: RHNConfig,
        *,
        recurrence: str = "fast",
        init_scale: float = 0.04,
        transform_bias: float = -2.0,
        matmul_dtype: str | None = None,
        return_state: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.init_scale = init_scale
        self.return_state = return_state
        self.input_spec = keras.layers.InputSpec(ndim=2)
        self.precision = Precision(matmul_dtype)
        self.rhn = RHN(
            config.hidden_size,
            config.recurrence_depth,
            config.num_layers,
            couple_gates=config.couple_gates,
            activation=config.activation,
            init_scale=init_scale,
            transform_bias=transform_bias,
            matmul_dtype=matmul_dtype,
            recurrence=recurrence,
            return_sequences=True,
            return_state=True,
            dtype=self.dtype_policy,
            name="rhn",
        )

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> RHNLanguageModel:
        """Load the model from a checkpoint, "best" or "last", of any port.

        Args:
            path: the checkpoint file, or a folder written by `export_hub`.
            options: arguments of the constructor, except `config`.

        Raises:
            CheckpointError: the file is not a checkpoint of a language model.
        """
        checkpoint, config, _ = load_language_model(path)
        model = cls(config, **options)
        model.load_parameters(checkpoint.parameters)
        return model

    def build(self, tokens_shape: tuple[int | None, ...]) -> None:
        """Make the parameters for tokens (B, T)."""
        config = self.config
        self.embedding = self._add_uniform("embedding", (config.vocab_size, config.embedding_width))
        self.rhn.build((*tokens_shape, config.embedding_width))
        self.softmax_weight = (
            None if config.tie_weights else self._add_uniform("softmax_weight", (config.hidden_size, config.vocab_size))
        )
        self.softmax_bias = self._add_uniform("softmax_bias", (config.vocab_size,))
        self.projection_weight = (
            self._add_uniform("projection_weight", (config.hidden_size, config.embedding_width))
            if config.has_projection
            else None
        )

    def call(
        self, tokens: tf.Tensor, state: Sequence[tf.Tensor] | None = None, masks: VariationalMasks | None = None
    ) -> Any:
        """Logits (B, T, V) of the next token at every position, and per layer the state (B, H) after the window.

        One flat tuple, `logits, *state = model(tokens)`, as in Keras' recurrent layers and SavedModel; the logits
        alone if not `return_state`.

        Args:
            tokens: (B, T) integers below V.
            state: per layer (B, H), the state before the window; None is zero.
            masks: of tensors or NumPy arrays; None drops nothing.
        """
        tokens = tf.cast(tokens, tf.int32)  # by default, Keras exports a model's inputs as floats
        top = self.top(tokens, state, masks)
        logits = self.logits(top.masked)
        return (logits, *top.state) if self.return_state else logits

    def top(
        self,
        tokens: tf.Tensor,
        state: Sequence[tf.Tensor] | None = None,
        masks: VariationalMasks | None = None,
        length: tf.Tensor | None = None,
    ) -> Top:
        """Everything below the softmax; arguments as in `call`. Time steps after `length`, (), are padding."""
        masks = mask_tensors(masks, self.compute_dtype)
        x = tf.gather(self.embedding, tokens)  # (B, T, E)
        if masks.embedding is not None:
            check_mask("embedding", masks.embedding, tuple(tokens.shape))
            x *= masks.embedding[:, :, tf.newaxis]
        if state is not None and masks.carried is not None:
            check_mask("carried", masks.carried, (tokens.shape[0],))
            state = [s * masks.carried[:, tf.newaxis] for s in state]
        valid = None if length is None else tf.broadcast_to(tf.range(tf.shape(tokens)[1]) < length, tf.shape(tokens))
        outputs, *new_state = self.rhn(x, initial_state=state, mask=valid, masks=masks)  # (B, T, H), per layer (B, H)
        masked = outputs
        if masks.output is not None:
            hidden_size = self.config.hidden_size
            check_mask("output", masks.output, (tokens.shape[0], hidden_size), (*tokens.shape, hidden_size))
            masked *= masks.output if masks.output.shape.rank == 3 else masks.output[:, tf.newaxis]
        return Top(masked, outputs, new_state)

    def logits(self, top: tf.Tensor) -> tf.Tensor:
        """(B, T, V) from the masked outputs of the top layer (B, T, H)."""
        logits = self._softmax_projection(tf.reshape(top, (-1, top.shape[-1])))  # (B*T, V)
        return tf.reshape(logits, (*tf.unstack(tf.shape(top)[:2]), self.config.vocab_size))

    def training_loss(
        self, window: Window, regularization: Regularization = NO_REGULARIZATION
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Loss, summed over the window, mean over the batch; the differentiated loss, which has the regularisation of
        activations too; and the state."""
        tokens, targets, state, masks, length = window
        top = self.top(tokens, state, masks, length)
        nll = cross_entropy(self.logits(top.masked), targets)  # (B, T)
        loss = tf.reduce_sum(tf.reduce_mean(nll if length is None else _before(length, nll), axis=0))
        return loss, loss + self._penalty(top, length, regularization), top.state

    def _penalty(self, top: Top, length: tf.Tensor | None, regularization: Regularization) -> tf.Tensor | float:
        """SPEC.md 5.11: summed over the window, mean over the batch and the units."""
        terms = []
        if regularization.activation is not None:
            masked = top.masked if length is None else _before(length, top.masked)
            terms.append(regularization.activation * tf.reduce_sum(tf.reduce_mean(tf.square(masked), axis=(0, 2))))
        if regularization.temporal is not None:
            changes = top.outputs[:, 1:] - top.outputs[:, :-1]  # (B, T - 1, H)
            changes = changes if length is None else _before(length - 1, changes)
            terms.append(regularization.temporal * tf.reduce_sum(tf.reduce_mean(tf.square(changes), axis=(0, 2))))
        return tf.add_n(terms) if terms else 0.0

    def compute_output_shape(self, tokens_shape: tuple[int | None, ...], state_shape: Any = None) -> tuple[Any, ...]:
        """Shapes of what `call` returns."""
        logits = (*tokens_shape, self.config.vocab_size)
        state = [(tokens_shape[0], self.config.hidden_size)] * self.config.num_layers
        return (logits, *state) if self.return_state else logits

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """As Keras has it, of the logits alone if there is one target."""
        return super().compute_loss(x, y, self._scored(y, y_pred), sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """As Keras has it, of the logits alone if there is one target."""
        return super().compute_metrics(x, y, self._scored(y, y_pred), sample_weight)

    @property
    def parameters(self) -> list[keras.Variable]:
        """Every trained variable: embedding, softmax, and layer by layer the variables of the cell."""
        own = (self.embedding, self.softmax_weight, self.softmax_bias, self.projection_weight)
        return [
            *(p for p in own if p is not None),
            *(variable for cell in self.rhn.cells for variable in cell.parameters),
        ]

    def generate(
        self,
        prompt: Sequence[int],
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> list[int]:
        """Sample `length` tokens that continue the prompt, without dropout.

        The tokens are the same in every port with the same weights, up to rounding.

        Args:
            prompt: at least one token, read first.
            length: number of tokens to sample.
            temperature, top_k, seed: see `rhn.sampling.sample_tokens`.

        Raises:
            ValueError: an argument is not accepted.
        """
        if not self.built:
            self.build((None, None))
        zero = [tf.zeros((1, self.config.hidden_size), self.compute_dtype)] * self.config.num_layers

        @tf.function(jit_compile=True)
        def next_logits(token: tf.Tensor, state: list[tf.Tensor]) -> list[tf.Tensor]:
            top, *state = self.rhn(tf.gather(self.embedding, token), initial_state=state)  # (1, 1, H), per layer (1, H)
            return [self._softmax_projection(top[0]), *state]

        def step(token: int, state: Any) -> tuple[NDArray, Any]:
            logits, *state = next_logits(tf.constant([[token]]), zero if state is None else state)  # (1, V)
            return logits[0].numpy(), state

        return list(sample_tokens(step, prompt, length, temperature=temperature, top_k=top_k, seed=seed))

    def load_parameters(self, parameters: Mapping[str, NDArray]) -> None:
        """Load copies of the tensors of `rhn.spec.parameters`; a model that is not built yet is built.

        Raises:
            ValueError: they do not fit the configuration.
        """
        check_parameters(self.config, parameters)
        if not self.built:
            self.build((None, None))
        for variable, value in zip(self.parameters, from_spec(self.config, parameters), strict=True):
            variable.assign(value)

    def export_parameters(self) -> dict[str, NDArray]:
        """Copies of the parameters, by the names and in the shapes of `rhn.spec.parameters`."""
        return to_spec(self.config, self.parameters)

    def get_config(self) -> dict[str, Any]:
        """Everything that `from_config` needs."""
        options = {name: getattr(self.rhn, name) for name in _OPTIONS_OF_RHN} | {"return_state": self.return_state}
        return super().get_config() | {"config": self.config.to_dict()} | options

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RHNLanguageModel:
        """A new model from the values of `get_config`; its parameters are drawn anew."""
        return cls(**(config | {"config": RHNConfig(**config["config"])}))

    def _add_uniform(self, name: str, shape: tuple[int, ...]) -> keras.Variable:
        initializer = keras.initializers.RandomUniform(-self.init_scale, self.init_scale)
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def _scored(self, y: Any, y_pred: Any) -> Any:
        """The outputs to compare with the targets `y`: all of them if each has a target, else the logits."""
        return y_pred[0] if self.return_state and not isinstance(y, list | tuple) else y_pred

    def _softmax_projection(self, top: tf.Tensor) -> tf.Tensor:
        """(rows, H) to (rows, V)."""
        if self.projection_weight is not None:
            top = self.precision.matmul(top, self.projection_weight)  # (rows, E)
        if self.softmax_weight is None:
            return self.precision.matmul(top, self.embedding, transpose_b=True) + self.softmax_bias
        return self.precision.matmul(top, self.softmax_weight) + self.softmax_bias


def _before(length: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values` (B, T, ...) with zeros from time step `length` on."""
    counts = tf.range(tf.shape(values)[1]) < length  # (T,)
    counts = tf.reshape(counts, (1, -1) + (1,) * (values.shape.rank - 2))
    return tf.where(counts, values, tf.zeros_like(values))
