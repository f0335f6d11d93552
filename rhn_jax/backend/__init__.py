"""The jax backend, as `rhn.training` and the conformance suite use it. A user of the layers needs nothing of it."""

from rhn_jax.backend.language_model import JaxBackend, JaxModel, find_device

__all__ = ["JaxBackend", "JaxModel", "find_device"]
