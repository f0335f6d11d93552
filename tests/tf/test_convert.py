"""rhn-convert: checkpoints as the authors' TensorFlow program writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from cases import relative_error
from numpy.typing import NDArray

import rhn
from rhn.training.command_line import run
from rhn_conformance.cases import authors_data as authors
from rhn_datasets import Vocabulary
from rhn_tf.convert import convert_variables, main, read_variables

GOLDEN = Path(__file__).parents[3] / "shared" / "authors-golden"
TENSORFLOW_CASES = [name for name in authors.CASES if name.startswith("tf_")]
LEARNING_RATE = {"model/Variable": np.float32(0.2)}

# Of the logits, relative to the largest. Measured: 1.5e-7 and 2.7e-16, which is the rounding of the authors' program.
TOLERANCE = {"float32": 5e-7, "float64": 1e-15}


def authors_variables(case: authors.AuthorsCase) -> dict[str, NDArray]:
    """The parameters of a case under the names and in the layouts of the authors' program."""
    p, variables = case.parameters, {}
    variables["model/embedding"] = p["embedding"]
    for step in range(case.config.recurrence_depth):
        for gate, branch in enumerate("ht"):
            matrix = p["layers.0.recurrent_weight"][step, gate]  # (H, H)
            if step == 0:
                matrix = np.concatenate([p["layers.0.input_weight"][gate], matrix])  # (E + H, H)
            variables[f"model/RHN0/{branch}_{step}/Linear/Matrix"] = matrix
            variables[f"model/RHN0/{branch}_{step}/Linear/Bias"] = p["layers.0.bias"][step, gate]
    if not case.config.tie_weights:
        variables["model/softmax_w"] = p["softmax.weight"]
    variables["model/softmax_b"] = p["softmax.bias"]
    return variables


def write(prefix: Path, variables: Mapping[str, NDArray]) -> Path:
    """A TensorFlow checkpoint of format V2, the way `tf.train.Saver` makes it."""
    slices = [""] * len(variables)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(variables), shape_and_slices=slices, tensors=list(variables.values())
    )
    return prefix


def logits_of(checkpoint: Path, case: authors.AuthorsCase) -> NDArray:
    parameters, metadata = rhn.load_checkpoint(checkpoint)
    config = rhn.RHNConfig(**metadata["config"])
    model = rhn.load_backend("reference").build(config, parameters, case.dtype)
    logits, _ = model.forward(case.tokens, case.state, case.masks)
    return logits


@pytest.mark.parametrize("name", TENSORFLOW_CASES)
def test_a_converted_checkpoint_gives_the_authors_logits(name: str, tmp_path: Path) -> None:
    case = authors.load_case(name)
    prefix = write(tmp_path / "ptb_1_best_model.ckpt", authors_variables(case) | LEARNING_RATE)
    main([str(prefix), str(tmp_path / "converted.safetensors")])
    _, metadata = rhn.load_checkpoint(tmp_path / "converted.safetensors")
    assert rhn.RHNConfig(**metadata["config"]) == case.config
    assert relative_error(logits_of(tmp_path / "converted.safetensors", case), case.logits) <= TOLERANCE[case.dtype]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the original program's own arrays (../shared) are not here")
@pytest.mark.parametrize("name", TENSORFLOW_CASES)
def test_the_original_programs_own_variables_are_understood(name: str, tmp_path: Path) -> None:
    """The names and layouts above are this test's reading of the authors' program; these are its own."""
    golden = np.load(GOLDEN / f"{name}.npz")
    variables = {key.removeprefix("param/"): golden[key] for key in golden.files if key.startswith("param/")}
    config, parameters, _ = convert_variables(read_variables(write(tmp_path / "model.ckpt", variables)))
    case = authors.load_case(name)
    assert config == case.config
    for tensor, value in case.parameters.items():
        np.testing.assert_array_equal(parameters[tensor], value)


def test_stacked_layers_are_told_apart() -> None:
    case = authors.load_case("tf_tiny_float32")
    variables = authors_variables(case)
    second = {name.replace("RHN0", "RHN1"): value + 1 for name, value in variables.items() if "RHN0" in name}
    config, parameters, left_out = convert_variables(variables | second)
    assert (config.num_layers, config.recurrence_depth, left_out) == (2, 3, [])
    rhn.check_parameters(config, parameters)
    for tensor in ("input_weight", "recurrent_weight", "bias"):
        np.testing.assert_array_equal(parameters[f"layers.1.{tensor}"], parameters[f"layers.0.{tensor}"] + 1)


def test_with_the_vocabulary_of_its_corpus_a_checkpoint_can_be_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = authors.load_case("tf_tiny_float32")  # 11 symbols
    prefix = write(tmp_path / "model.ckpt", authors_variables(case) | LEARNING_RATE)
    text = tmp_path / "own.txt"
    text.write_text("to be or not to be that is the question whether tis\n" * 20)
    output = tmp_path / "converted.safetensors"
    main([str(prefix), str(output), "--dataset", "text", "--data-path", str(text), "--level", "word"])
    said = capsys.readouterr().out
    assert "left out, being state of the training: model/Variable" in said
    assert "without a vocabulary" not in said

    _, metadata = rhn.load_checkpoint(output)
    words = Vocabulary.from_json(metadata["vocabulary"]).symbols
    assert words[:2] == ("be", "to")  # most frequent first, then by the alphabet
    run("reference", ["evaluate", "with", f"checkpoint={output}", "progress=False"])
    assert re.search(r"test \(batch 1\): perplexity \d+", capsys.readouterr().out)


def test_without_a_corpus_the_missing_vocabulary_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = write(tmp_path / "model.ckpt", authors_variables(authors.load_case("tf_tiny_float32")))
    main([str(prefix), str(tmp_path / "converted.safetensors")])
    said = capsys.readouterr().out
    assert "1 x 6 units, recurrence depth 3, vocabulary 11, tied, 401 parameters" in said
    assert "convert it again with --dataset" in said
    assert "left out" not in said


def _without(name: str, variables: dict[str, NDArray]) -> dict[str, NDArray]:
    return {key: value for key, value in variables.items() if key != name}


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        ("tf_tiny", lambda v: _without("model/RHN0/t_1/Linear/Bias", v), "missing model/RHN0/t_1/Linear/Bias;"),
        ("tf_tiny", lambda v: _without("model/softmax_b", v), "missing model/softmax_b;"),
        ("tf_untied_small_vocab", lambda v: _without("model/softmax_w", v), "missing model/softmax_w;"),
        ("tf_tiny", lambda v: v | {"model/extra": np.ones(3)}, "not expected model/extra"),
        (
            "tf_tiny",
            lambda v: v | {"model/softmax_b": np.ones(7, np.float32)},
            r"model/softmax_b has shape \(7,\), where the other variables need \(11,\)",
        ),
        ("tf_tiny", lambda v: _without("model/embedding", v), "not a checkpoint of the authors' program: it needs"),
        ("tf_tiny", lambda v: {"dense/kernel": np.ones((2, 2))}, "and holds dense/kernel$"),
    ],
)
def test_what_is_not_the_authors_is_refused(case: str, change: object, message: str) -> None:
    variables = authors_variables(authors.load_case(f"{case}_float32"))
    with pytest.raises(rhn.CheckpointError, match=message):
        convert_variables(change(variables))  # type: ignore[operator]


def test_files_that_cannot_be_read_end_in_one_sentence(tmp_path: Path) -> None:
    prefix = write(tmp_path / "model.ckpt", authors_variables(authors.load_case("tf_tiny_float32")))
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    output = tmp_path / "converted.safetensors"

    def error_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, str(output)])
        message = str(stopped.value)
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    assert "there is no file" in error_of(str(tmp_path / "absent.ckpt"))
    assert "there is no file" in error_of(f"{prefix}.index")
    damaged = f"the TensorFlow checkpoint {prefix} is damaged"
    data.write_bytes(data.read_bytes()[:100])
    assert damaged in error_of(str(prefix))
    data.unlink()
    assert damaged in error_of(str(prefix))
    (tmp_path / "model.ckpt.index").write_bytes(b"not an index")
    assert damaged in error_of(str(prefix))
    assert not output.exists()


def test_a_corpus_of_another_size_is_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path / "model.ckpt", authors_variables(authors.load_case("tf_tiny_float32")))
    text = tmp_path / "own.txt"
    text.write_text("only three words\n" * 20)
    with pytest.raises(SystemExit, match=r"--dataset text has 4 symbols, the checkpoint 11$"):
        main([str(prefix), str(tmp_path / "out"), "--dataset", "text", "--data-path", str(text), "--level", "word"])
