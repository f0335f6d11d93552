"""The tests of this folder need TensorFlow, and are left out where it is not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

if find_spec("tensorflow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes about CPU instructions and absent GPUs
    import tensorflow as tf

    from rhn_tf.backend.quick_compilation import compile_quickly

    # What Grappler and LLVM optimise changes nothing that is tested, and takes half of the time.
    compile_quickly()

    # The tensors here are tiny: threads would only wait for each other.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture
def eagerly() -> Iterator[None]:
    """Every `tf.function` runs operation by operation: a hundred models would take minutes to trace and compile."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
