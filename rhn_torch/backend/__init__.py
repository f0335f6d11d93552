"""The torch backend, as `rhn.training` and the conformance suite use it. A user of the layers needs nothing of it."""

from rhn_torch.backend.language_model import TorchBackend, TorchModel, find_device

__all__ = ["TorchBackend", "TorchModel", "find_device"]
