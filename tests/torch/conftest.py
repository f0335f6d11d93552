"""The tests of this folder need PyTorch, and are left out where it is not installed."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)  # the tensors here are tiny: threads would only wait for each other
