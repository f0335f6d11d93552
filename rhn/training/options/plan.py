"""The plan of a run, made from its options. Wrong options are found here, before anything is loaded."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rhn.backend import Model, check_precision
from rhn.spec.arguments import refusal
from rhn.spec.config import RHNConfig
from rhn.spec.masks import DropRates
from rhn.spec.optimizers import Optimizer
from rhn.spec.parameters import Parameters, initial_parameters, parameter_count
from rhn.training.options.table import OptionError, Options, options_from, pick
from rhn.training.schedules import Schedule
from rhn_datasets import CORPORA


@dataclass(frozen=True)
class Plan:
    """The options of a run, and the objects made from them.

    Attributes:
        options: the options of the command line.
        rates: the drop rates.
        optimizer: the update rule of the training steps.
        schedule: the schedule of the learning rate.
    """

    options: Options
    rates: DropRates
    optimizer: Optimizer
    schedule: Schedule

    @classmethod
    def from_options(cls, values: Mapping[str, Any]) -> Plan:
        """The plan for the options in `values`, by name; missing options have their defaults.

        Raises:
            ValueError: the value of an option is not accepted, alone or together with other options.
            ImportError: an option needs a package that is not installed.
        """
        o = options_from(values)
        names = ("decoupled_weight_decay", "beta1", "beta2", "epsilon", "momentum", "max_grad_value")
        plan = cls(
            options=o,
            rates=pick(DropRates, vars(o)),
            optimizer=Optimizer(o.optimizer, **{name: getattr(o, name) for name in names}),
            schedule=pick(Schedule, vars(o)),
        )
        plan.architecture(vocab_size=1)  # a vocabulary of one stands in for the real one
        levels = CORPORA[o.dataset].levels
        if o.level is not None and o.level not in levels:
            raise OptionError(f"level={o.level!r} is not accepted with dataset={o.dataset!r}: expected {levels[0]!r}")
        if o.bptt_jitter is not None and o.bptt_jitter > o.bptt_length:
            raise refusal("bptt_jitter", o.bptt_jitter, f"a number of at most bptt_length={o.bptt_length}")
        if o.precision is not None:
            check_precision(o.precision, o.dtype)
        if o.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise ImportError("tensorboard=True needs tensorboardX, which is not installed: pip install tensorboardX")
        return plan

    def architecture(self, vocab_size: int) -> RHNConfig:
        """The architecture for data with `vocab_size` symbols; OptionError if the options ask for another number."""
        wanted = self.options.vocab_size
        if wanted is not None and vocab_size not in (1, wanted):
            raise OptionError(f"vocab_size={wanted!r} is not accepted: the data have {vocab_size} symbols")
        return pick(RHNConfig, {**vars(self.options), "vocab_size": vocab_size})

    def initial_parameters(self, config: RHNConfig) -> Parameters:
        """The parameters from which training starts; OptionError if this machine has too little memory for them."""
        self._check_memory(config)
        o = self.options
        return initial_parameters(
            config, o.seed, o.init_scale, o.transform_bias, o.other_bias, o.initializer, o.embedding_init_scale
        )

    def learning_rate(self, epoch: int, valid_scores: Sequence[float]) -> float:
        """Learning rate of epoch `epoch`, counted from 0, given the validation scores of the earlier epochs."""
        return self.schedule.rate(epoch, valid_scores)

    def extras_of(self, model: Model) -> dict[str, Any]:
        """The optional arguments of `model.train_step` that the options use.

        Raises:
            OptionError: the model's `train_step` does not have one of them.
        """
        names = ("activation_regularization", "temporal_activation_regularization")
        extras = {name: value for name in names if (value := getattr(self.options, name))}
        known = inspect.signature(model.train_step).parameters
        needed = {**extras, "length": self.options.bptt_jitter} if self.options.bptt_jitter else extras
        for name, value in needed.items():
            if name not in known:
                raise OptionError(f"{name}={value!r} is not accepted: this backend has no such training step")
        return extras

    def precision(self, *, training: bool, device: str) -> str:
        """The format to which factors of matrix products may be rounded. By default a GPU trains in tf32 and scores in
        float32.

        Args:
            training: whether the model will be trained.
            device: "cpu", or the name of another device.
        """
        o = self.options
        if o.precision is not None:
            return o.precision
        return "tf32" if training and device != "cpu" and o.dtype == "float32" else "float32"

    def _check_memory(self, config: RHNConfig) -> None:
        """Refuse a model whose parameters, gradients and optimiser state do not fit into memory."""
        count = parameter_count(config)
        copies = 4 if self.optimizer.name == "adam" else 3 if self.optimizer.momentum else 2
        needed = count * copies * (8 if self.options.dtype == "float64" else 4)
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else needed
        if needed > there:
            raise OptionError(
                f"hidden_size={config.hidden_size} is not accepted with recurrence_depth={config.recurrence_depth},"
                f" num_layers={config.num_layers} and embedding_size={self.options.embedding_size}: {count:,}"
                f" parameters need {needed // 10**9:,} GB to train, this machine has {there // 10**9:,} GB"
            )


def data_in_full(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the absolute path of the data, so that a run finds them from any folder."""

    def in_full(path: str) -> str:
        return path if path.startswith("~") else str(Path(path).absolute())

    data_path = values.get("data_path")
    if isinstance(data_path, str):
        return {**values, "data_path": in_full(data_path)}
    if isinstance(data_path, list | tuple):
        return {**values, "data_path": [in_full(path) for path in data_path]}
    return dict(values)
