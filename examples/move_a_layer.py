"""Move a layer from PyTorch to a TensorFlow SavedModel and to ONNX: `python examples/move_a_layer.py [FOLDER]`.

The results of both files are compared with those of PyTorch. The part for ONNX needs the packages onnx, onnxscript and
onnxruntime.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch  # before TensorFlow: the other way round, some builds of the two crash each other
from numpy.typing import NDArray

import rhn_torch

ONNX = ("onnx", "onnxscript", "onnxruntime")
INPUT_SIZE, HIDDEN_SIZE, DEPTH, LAYERS = 8, 16, 3, 2


def to_saved_model(layer: rhn_torch.RHN, x: NDArray[np.float32], folder: Path) -> NDArray[np.float32]:
    """Write the layer as a SavedModel for any batch size and length; the outputs (B, T, H) of the file for x."""
    import keras
    import tensorflow as tf

    import rhn_tf

    moved = rhn_tf.RHN(HIDDEN_SIZE, DEPTH, LAYERS, return_sequences=True)
    moved.load_parameters(layer.export_parameters())
    inputs = keras.Input((None, INPUT_SIZE))
    keras.Model(inputs, moved(inputs)).export(folder, verbose=False)
    loaded = tf.saved_model.load(folder)
    return loaded.serve(x).numpy()


def to_onnx(layer: rhn_torch.RHN, x: NDArray[np.float32], path: Path) -> NDArray[np.float32]:
    """Write the layer as an ONNX file for any batch size; the outputs (B, T, H) of the file for x."""
    import onnxruntime

    batch = {0: torch.export.Dim("batch", min=1)}
    example = torch.zeros(2, *x.shape[1:])  # (2, T, E)
    torch.onnx.export(layer, (example,), path, dynamo=True, dynamic_shapes=(batch,), verbose=False)
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def main(folder: Path) -> dict[str, float]:
    """Write both files into the folder; the largest difference of each from PyTorch."""
    torch.manual_seed(1)
    layer = rhn_torch.RHN(INPUT_SIZE, HIDDEN_SIZE, DEPTH, LAYERS, batch_first=True).eval()
    x = np.random.default_rng(1).normal(size=(5, 10, INPUT_SIZE)).astype(np.float32)  # (B, T, E)
    with torch.no_grad():
        expected = layer(torch.as_tensor(x))[0].numpy()  # (B, T, H)
    outputs = {"SavedModel": to_saved_model(layer, x, folder / "rhn_saved_model")}
    missing = [package for package in ONNX if importlib.util.find_spec(package) is None]
    if missing:
        print(f"ONNX: skipped, because {', '.join(missing)} is not installed: pip install {' '.join(ONNX)}")
    else:
        outputs["ONNX"] = to_onnx(layer, x, folder / "rhn.onnx")
    differences = {name: float(np.abs(output - expected).max()) for name, output in outputs.items()}
    for name, difference in differences.items():
        print(f"{name}: largest difference from PyTorch {difference:.1e}")
    return differences


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
