"""The frozen vectors are small, and regenerate bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rhn_conformance import frozen_vectors


def test_they_regenerate_bit_for_bit() -> None:
    assert frozen_vectors.check_vectors() == []


# They are part of every clone and wheel. 588 kB: 254 kB of cases, 20 kB for each of 16 small models, and the manifest.
def test_they_are_small() -> None:
    assert sum(file.stat().st_size for file in frozen_vectors.FILES.values()) < 600_000


def test_the_manifest_describes_every_case() -> None:
    manifest = json.loads(frozen_vectors.FILES["manifest.json"].read_text())
    tensors = safetensors.numpy.load_file(frozen_vectors.FILES["cases.safetensors"])
    assert list(manifest["cases"]) == list(frozen_vectors.FROZEN_CASES)
    assert {name.split("/")[0] for name in tensors} == set(frozen_vectors.FROZEN_CASES)


def test_one_changed_bit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_vectors, "FROZEN_CASES", ("plain",))
    monkeypatch.setattr(frozen_vectors.preflight, "variants", list)
    monkeypatch.setattr(frozen_vectors, "FILES", {name: tmp_path / name for name in frozen_vectors.FILES})
    frozen_vectors.write_vectors()
    assert frozen_vectors.check_vectors() == []

    path = tmp_path / "cases.safetensors"
    tensors = {name: value.copy() for name, value in safetensors.numpy.load_file(path).items()}
    logits = tensors["plain/expected/forward/logits"]
    logits[0, 0, 0] = np.nextafter(logits[0, 0, 0], 1.0)
    del tensors["plain/inputs/tokens"]
    path.write_bytes(safetensors.numpy.save(tensors))
    (tmp_path / "manifest.json").write_text("{}")
    assert frozen_vectors.check_vectors() == [
        "cases.safetensors: plain/expected/forward/logits differs",
        "cases.safetensors: plain/inputs/tokens is missing",
        "manifest.json differs",
    ]
