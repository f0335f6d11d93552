"""The commands that look at a checkpoint, as their user types them."""

from pathlib import Path

import pytest

from rhn.training.command_line import run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["evaluate", "with", "temperature=2", "evaluation=authors_batched", "num_steps=5", "batch_size=2"],
            "windows of 5",
        ),
        (["evaluate_mc", "with", "mc_steps=2", "drop_h=0.5"], "mean of 2 samples, all kept"),
        (["evaluate_dynamic", "with", "dynamic_rule=sgd"], "dynamic evaluation, not comparable"),
        (["generate", "with", "prompt=the", "length=5", "top_k=3"], "\nthe"),
        (["analyse", "with", "analyse_tokens=9", "part=train"], "the first 9 tokens of train"),
    ],
)
def test_a_command_line(checkpoint: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str) -> None:
    run("reference", [*words, f"load_model={checkpoint}"])
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate_mc", "with", "mc_steps=0"], "error: mc_samples=0 is not accepted"),
        (["evaluate_dynamic", "with", "dynamic_rule=fast"], "error: dynamic_rule='fast' is not accepted"),
        (["generate", "with", "temperature=hot"], "error: temperature='hot' is not accepted"),
        (["analyse", "with", "part=dev"], "error: part='dev' is not accepted"),
        (["generate"], "error: checkpoint=None is not accepted"),
    ],
)
def test_bad_input_ends_with_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run("reference", words)


def test_ctrl_c_ends_a_command_quietly(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(backend: str, options: dict, given: dict) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rhn.training.command_line.generate_text", press)
    with pytest.raises(SystemExit) as end:
        run("reference", ["generate", "with", f"checkpoint={checkpoint}"])
    assert end.value.code == 130
