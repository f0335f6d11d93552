"""The metrics of a run for TensorBoard, by option: everything is in `metrics.jsonl` anyway."""

from __future__ import annotations

from pathlib import Path


class TensorBoardLog:
    """Writes scalars into an event file that `tensorboard --logdir` reads.

    Args:
        folder: where the event file is made; the run's own, so that one `--logdir` over all runs compares them.

    Raises:
        ImportError: tensorboardX is not installed; the message says what to install.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter  # imported by whoever asks for it: nothing else needs it
        except ModuleNotFoundError as error:
            raise ImportError(
                f"tensorboard=True needs {error.name}, which is not installed: pip install tensorboardX"
            ) from error
        self._writer = SummaryWriter(str(folder))

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """Note `value` of the metric `name` after training step `step`."""
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory; nothing can be logged after it."""
        self._writer.close()
