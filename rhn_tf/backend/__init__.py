"""The tf backend, as `rhn.training` and the conformance suite use it. A user of the layers needs nothing of it."""

from rhn_tf.backend.language_model import TensorFlowBackend, TensorFlowModel, find_device, let_gpu_memory_grow

__all__ = ["TensorFlowBackend", "TensorFlowModel", "find_device", "let_gpu_memory_grow"]
