"""Writes the metrics of a run for TensorBoard, if the user asks for it; `metrics.jsonl` holds them in any case."""

from __future__ import annotations

from pathlib import Path


class TensorBoardLog:
    """Writes scalars into an event file that `tensorboard --logdir` reads.

    Args:
        folder: where the event file is written. In the folder of the run, one `--logdir` over all runs compares them.

    Raises:
        ImportError: tensorboardX is not installed; the message says what to install.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter  # imported only if the user asks for it
        except ModuleNotFoundError as error:
            raise ImportError(
                f"tensorboard=True needs {error.name}, which is not installed: pip install tensorboardX"
            ) from error
        self._writer = SummaryWriter(str(folder))

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """Write the `value` of the metric `name` after training step `step`."""
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory; afterwards nothing can be logged."""
        self._writer.close()
