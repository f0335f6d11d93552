"""The experiment of section 5.1: what its losses count, and that its networks are of one size."""

from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "jsb"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.parametrize("cell", ["RHN", "DT-RNN", "DT(S)-RNN"])
def test_a_piece_counts_the_same_beside_a_longer_one(cell):
    from chorales import batch_of
    from models import MusicModel

    torch.manual_seed(1)
    model = MusicModel(cell, 5, 2).double()
    generator = np.random.default_rng(1)
    pieces = [generator.integers(0, 2, (frames, 88), dtype=np.uint8) for frames in (4, 9)]

    def nats(batch):
        return model.nats(batch.x.double(), batch.y.double(), batch.lengths).item()

    alone = sum(nats(batch_of([piece])) for piece in pieces)
    assert nats(batch_of(pieces)) == pytest.approx(alone, rel=1e-12)


def test_networks_of_all_depths_have_as_many_parameters():
    from models import MusicModel, hidden_size_of
    from optimisation import PARAMETERS, kinds

    for cell, depth in kinds():
        model = MusicModel(cell, hidden_size_of(cell, depth, PARAMETERS), depth)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == pytest.approx(PARAMETERS, rel=0.01)


def test_the_initial_gates_of_an_rhn_are_as_the_setting_says():
    from models import MusicModel, initialise

    model = MusicModel("RHN", 4, 3)
    initialise(model, std=1e-3, transform_bias=-2.0)
    gates = model.recurrent.rhn.export_parameters()["layers.0.bias"]  # (L, G, H)
    assert (gates[:, 1] == -2.0).all()
    assert (gates[:, 0] == 0.0).all()


def test_lesions_leave_the_model_as_it_was():
    from models import MusicModel
    from optimisation import score
    from regularised import gate_activity, lesions

    torch.manual_seed(1)
    model = MusicModel("RHN", 4, 3)
    pieces = [np.random.default_rng(1).integers(0, 2, (9, 88), dtype=np.uint8)]
    before = score(model, pieces)
    losses = lesions(model, pieces)
    assert len(losses) == 3
    assert before not in losses
    assert score(model, pieces) == before
    activity = gate_activity(model, pieces[0])
    assert activity.shape == (3, 8)
    assert (activity > 0).all()
    assert (activity < 1).all()
