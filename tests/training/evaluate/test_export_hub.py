"""A folder to hand on: what is in it, what is not, and that it scores as the checkpoint that it was made of."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import rhn
from rhn.checkpoint import load_language_model
from rhn.files import write_atomically
from rhn.spec.parameters import parameter_count, parameter_shapes
from rhn.text import one_line
from rhn.training.command_line import run
from rhn.training.evaluate import export_hub as command
from rhn.training.evaluate.export_hub import export_hub
from rhn.training.evaluate.stream import evaluate_checkpoint
from rhn.training.options import DEFAULTS, OptionError
from rhn.training.options.plan import Plan
from rhn.training.recipes import RECIPES
from rhn.training.terminal.read_words import read_words
from rhn_datasets import Vocabulary

FILES = ["README.md", "config.json", "model.safetensors"]
TEXT = "to be, or not to be: that is the question.\n" * 30


def inside(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """What the YAML in front says, and the page."""
    _, front_matter, page = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front_matter), page


# ---------------------------------------------------------------------------------------------------------------------
# What is in it
# ---------------------------------------------------------------------------------------------------------------------


def test_it_scores_as_the_checkpoint(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert call(export_hub, folder=str(folder)) == str(folder)
    assert inside(folder) == FILES
    data = {"data_path": str(tmp_path / "text.txt")}
    assert call(evaluate_checkpoint, checkpoint=str(folder), **data) == call(evaluate_checkpoint)
    assert call(evaluate_checkpoint, checkpoint=str(folder / "model.safetensors"), **data) == call(evaluate_checkpoint)


# Relative. Measured: 9e-6, of an untrained model with weights up to 0.7; docs/train.md has that of a trained one.
def test_float16_hardly_changes_the_score(call: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    call(export_hub, folder=str(tmp_path / "half"), stored_dtype="float16")
    half = call(evaluate_checkpoint, checkpoint=str(tmp_path / "half"), data_path=str(tmp_path / "text.txt"))
    assert half == pytest.approx(call(evaluate_checkpoint), rel=5e-5)
    stored, _ = rhn.load_checkpoint(tmp_path / "half")
    loaded = load_language_model(tmp_path / "half")[0].parameters
    for name, value in rhn.load_checkpoint(checkpoint)[0].items():
        assert (stored[name].dtype, loaded[name].dtype) == (np.float16, np.float32)
        np.testing.assert_array_equal(loaded[name], value.astype(np.float16).astype(np.float32))


def test_it_generates_without_any_other_file(
    call: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(export_hub, folder=str(tmp_path / "model"))
    (tmp_path / "text.txt").unlink()
    capsys.readouterr()
    run("reference", ["generate", "with", f"checkpoint={tmp_path / 'model'}", "length=20", "prompt=the"])
    from_folder = capsys.readouterr().out.partition("\n")[2]
    run("reference", ["generate", "with", f"checkpoint={tmp_path / 'model.safetensors'}", "length=20", "prompt=the"])
    assert from_folder == capsys.readouterr().out.partition("\n")[2]
    assert from_folder.startswith("the")


def test_nothing_of_the_training_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    words = ["optimizer=adam", "hidden_size=4", "recurrence_depth=1", "max_steps=3", "preflight=False", "run=a"]
    where = [f"data_path={tmp_path / 'text.txt'}", f"runs_path={tmp_path}"]
    run("reference", ["train", "with", "dataset=text", "batch_size=2", "bptt_length=5", *words, *where])
    last = tmp_path / "a" / "last.safetensors"
    assert any(name.startswith("optimizer.") for name in rhn.load_checkpoint(last)[0])
    run("reference", ["export_hub", "with", f"checkpoint={last}"])
    folder = tmp_path / "a" / "last.hub"
    tensors, metadata = rhn.load_checkpoint(folder)
    assert tensors.keys() == parameter_shapes(rhn.RHNConfig(**metadata["config"])).keys()
    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
    assert Vocabulary.from_json(metadata.pop("vocabulary")).encode("question").size == 8
    metadata.pop("versions")
    assert json.loads((folder / "config.json").read_text()) == metadata


def test_the_shakespeare_model_takes_two_bytes_a_parameter(tmp_path: Path) -> None:
    plan = Plan.from_options({**DEFAULTS, **RECIPES["shakespeare"]})
    config = plan.architecture(65)
    vocabulary = Vocabulary(tuple(map(chr, range(32, 97))), "char")
    metadata = {"config": config.to_dict(), "vocabulary": vocabulary.to_json(), "options": RECIPES["shakespeare"]}
    rhn.save_checkpoint(tmp_path / "best.safetensors", plan.initial_parameters(config), metadata)
    run("reference", ["export_hub", "with", f"checkpoint={tmp_path / 'best.safetensors'}", "stored_dtype=float16"])
    assert sum(file.stat().st_size for file in (tmp_path / "best.hub").iterdir()) < 2 * parameter_count(config) + 20_000


# ---------------------------------------------------------------------------------------------------------------------
# Its card
# ---------------------------------------------------------------------------------------------------------------------


def test_the_card_says_how_it_was_trained(call: Callable[..., Any], tmp_path: Path) -> None:
    call(export_hub, folder=str(tmp_path / "model"), license="mit")
    front_matter, page = card_of(tmp_path / "model")
    assert front_matter["library_name"] == "recurrent-highway-networks"
    assert front_matter["license"] == "mit"
    assert "Licence of the parameters: mit." in page
    assert "No licence" not in page
    commands = [line for line in page.splitlines() if line.startswith("python -m ")]
    read = [read_words(shlex.split(line)[3:], RECIPES) for line in commands]
    assert [words.command for words in read] == ["generate", "evaluate", None]
    assert read[-1].values == {"dataset": "text", "dtype": "float64", "data_path": "TEXT"}


def test_no_licence_is_claimed_that_was_not_given(call: Callable[..., Any], tmp_path: Path) -> None:
    call(export_hub, folder=str(tmp_path / "model"))
    front_matter, page = card_of(tmp_path / "model")
    assert "license" not in front_matter
    assert "No licence of the parameters is stated" in page


def test_the_card_has_the_scores_of_this_checkpoint_only(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    words = ["hidden_size=4", "recurrence_depth=1", "epochs=2", "preflight=False", "run=a"]
    where = [f"data_path={tmp_path / 'text.txt'}", f"runs_path={tmp_path}"]
    run("reference", ["train", "with", "dataset=text", "batch_size=2", "bptt_length=5", *words, *where])
    best, summary = tmp_path / "a" / "best.safetensors", tmp_path / "a" / "summary.json"
    (tmp_path / "a" / "best.mc-test.json").write_text(json.dumps({"shown": {"test, a|b": "<b>3</b>"}}))
    figures = json.loads(summary.read_text())

    def card(name: str, *more: str) -> str:
        run("reference", ["export_hub", "with", f"folder={tmp_path / name}", *(more or [f"checkpoint={best}"])])
        return card_of(tmp_path / name)[1]

    page = card("scored")
    assert f"| test (batch 1) | bits per character {figures['test']['value']:.4g} over 63 tokens |" in page
    assert "| test, a&#124;b | &lt;b&gt;3&lt;/b&gt; |" in page
    assert "before the parameters were rounded" not in page
    assert "## Sample" in page
    rounded = card("rounded", f"checkpoint={best}", "stored_dtype=float16")
    assert "measured before the parameters were rounded to float16" in rounded
    assert "None is known" in card("last", f"checkpoint={tmp_path / 'a' / 'last.safetensors'}")
    summary.write_text(json.dumps({**figures, "best_epoch": 9}))  # the run went on, and has another best by now
    page = card("old")
    assert "None is known" in page
    assert "## Sample" not in page


def test_hostile_names_and_texts_stay_text(checkpoint: Path, tmp_path: Path) -> None:
    _, metadata = rhn.load_checkpoint(checkpoint)
    parameters, _ = rhn.load_checkpoint(checkpoint)
    rhn.save_checkpoint(checkpoint, parameters, {**metadata, "backend": "torch`\n```\n<script>"})
    folder, license = tmp_path / "a|b <script> `x`\n# y\x1b", 'a: "b"\n---\n# c'
    values = {**DEFAULTS, "checkpoint": str(checkpoint), "folder": str(folder), "license": license}
    export_hub("reference", values, {})
    front_matter, page = card_of(folder)
    assert front_matter["license"] == one_line(license)
    assert "\n# a&#124;b &lt;script&gt; \\`x\\` # y\\\\x1b\n" in page
    assert "<script>" not in page
    assert len(re.findall("^# ", page, flags=re.MULTILINE)) == 1
    assert page.count("```") % 2 == 0
    assert "python -m rhn_torch.train with dataset" in page


# ---------------------------------------------------------------------------------------------------------------------
# What is refused, and what a failure leaves
# ---------------------------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    call(export_hub, folder=str(folder))  # an empty folder is as good as none
    (folder / "README.md").write_text("mine")
    for name in ("model", "text.txt"):
        with pytest.raises(OptionError, match=r"folder=.* is not accepted: it is there already and not empty"):
            call(export_hub, folder=str(tmp_path / name))
    assert (folder / "README.md").read_text() == "mine"
    with pytest.raises(OptionError, match="is not accepted: expected a name in a folder that exists"):
        call(export_hub, folder=str(tmp_path / "nowhere" / "model"))


def test_what_does_not_fit_into_float16_is_refused(call: Callable[..., Any], checkpoint: Path, tmp_path: Path) -> None:
    parameters, metadata = rhn.load_checkpoint(checkpoint)
    parameters["softmax.bias"][0] = -1e5
    rhn.save_checkpoint(checkpoint, parameters, metadata)
    with pytest.raises(OptionError, match=r"stored_dtype='float16' is not accepted: softmax.bias holds 100000"):
        call(export_hub, folder=str(tmp_path / "model"), stored_dtype="float16")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("words", [{"stored_dtype": "bfloat16"}, {"license": ""}, {"folder": 3}, {"checkpoint": None}])
def test_bad_options_are_named(call: Callable[..., Any], words: dict[str, Any]) -> None:
    ((name, value),) = words.items()
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        call(export_hub, **words)


def test_a_failure_leaves_no_folder_and_a_kill_none_for_long(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inside(tmp_path)

    def full(path: Path, payload: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(command, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        call(export_hub, folder=str(tmp_path / "model"))
    assert inside(tmp_path) == before
    monkeypatch.setattr(command, "write_atomically", write_atomically)
    killed = tmp_path / ".model.x.tmp"
    killed.mkdir()
    (killed / "README.md").touch()
    call(export_hub, folder=str(tmp_path / "model"))
    assert inside(tmp_path) == sorted([*before, "model"])


def test_it_is_an_ordinary_folder(call: Callable[..., Any], tmp_path: Path) -> None:
    call(export_hub, folder=str(tmp_path / "model"))
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "model").stat().st_mode == (tmp_path / "plain").stat().st_mode
