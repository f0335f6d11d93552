import struct
import sys
from pathlib import Path

import pytest

from rhn.training.report.tensorboard import TensorBoardLog


def test_scalars_can_be_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is optional")
    from tensorboardX.proto.event_pb2 import Event

    log = TensorBoardLog(tmp_path)
    log.log_scalar("valid_nats", 4.5, 1327)
    log.log_scalar("valid_nats", 4.25, 2654)
    log.close()
    (file,) = tmp_path.iterdir()
    events = [Event.FromString(record) for record in records(file.read_bytes())]
    scalars = [(v.tag, v.simple_value, event.step) for event in events for v in event.summary.value]
    assert scalars == [("valid_nats", 4.5, 1327), ("valid_nats", 4.25, 2654)]


def records(data: bytes) -> list[bytes]:
    """Payloads of a TFRecord file: each stands behind its length (8 bytes) and a checksum (4), before another (4)."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"tensorboard=True needs tensorboardX, .*: pip install tensorboardX"):
        TensorBoardLog(tmp_path)
