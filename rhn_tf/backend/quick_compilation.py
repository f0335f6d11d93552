"""Compiling in less time, for a process in which most programs run only once."""

from __future__ import annotations

import os

import tensorflow as tf

XLA_FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
# The former code generator. A version of TensorFlow that does not know the flag would end the process.
if tf.__version__.startswith("2.21."):
    XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def compile_quickly() -> None:
    """Turn off the optimisations of graphs and of XLA's machine code; on a CPU, before anything is compiled."""
    if not tf.config.list_physical_devices("GPU"):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS)).strip()
