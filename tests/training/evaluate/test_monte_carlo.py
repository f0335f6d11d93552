import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threads import in_threads

import rhn
from rhn.processes import ALONE, Processes
from rhn.spec import reference
from rhn.spec.arguments import check_masks
from rhn.spec.masks import DropRates, StreamMasks, VariationalMasks, sample_stream_masks
from rhn.training.evaluate.monte_carlo import (
    MonteCarloAverage,
    add_samples,
    evaluate_mc,
    identity_of,
    stream_log_likelihoods,
)
from rhn.training.options import OptionError, Options
from rhn.training.run.folder import one_writer

# So small that all masks can be listed: 3 word types, 2 units of the state, 2 of the output.
CONFIG = rhn.RHNConfig(vocab_size=3, hidden_size=2, recurrence_depth=2)
PARAMETERS = rhn.initial_parameters(CONFIG, seed=5, init_scale=1.5, transform_bias=0.0)
STREAM = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0, 0, 1], dtype=np.uint8)
OPTIONS = Options(mc_samples=6, mc_rows=4, bptt_length=5)
KEPT = np.array(list(itertools.product((0.0, 1.0), repeat=7)))  # (128, 7) every choice of kept units


@pytest.fixture(scope="module")
def model() -> rhn.Model:
    return rhn.load_backend("reference").build(CONFIG, PARAMETERS, "float64")


def masks_of_all_choices(keep: float) -> StreamMasks:
    scaled = KEPT / keep
    others = VariationalMasks(state=[scaled[None, :, 3:5]], output=scaled[:, 5:])
    return StreamMasks(len(KEPT), scaled[:, :3], others)


def probabilities_of_all_choices(keep: float) -> NDArray[np.float64]:
    """(128, n - 1): of every target under every choice, each in a forward of its own over the whole stream."""
    rows = []
    for choice in KEPT / keep:
        masks = VariationalMasks(choice[:3][STREAM[None, :-1]], None, [choice[None, None, 3:5]], choice[None, 5:])
        logits, _ = reference.forward(CONFIG, PARAMETERS, STREAM[None, :-1], None, masks)
        odds = np.exp(logits[0])  # (n - 1, V)
        rows.append(odds[np.arange(len(odds)), STREAM[1:]] / odds.sum(axis=1))
    return np.array(rows)


def test_the_mean_over_all_masks_is_the_enumeration(model: rhn.Model) -> None:
    """At a rate of 1/2 all masks are equally likely."""
    average = MonteCarloAverage.empty(len(STREAM) - 1, legacy=False)
    for row in stream_log_likelihoods(model, STREAM, masks_of_all_choices(0.5), bptt_length=5):
        average.add(row)
    exact = probabilities_of_all_choices(0.5).mean(axis=0)
    np.testing.assert_allclose(np.exp(average.log_sum) / len(KEPT), exact, rtol=1e-13)
    assert average.score("word").value == pytest.approx(np.exp(-np.log(exact).mean()), rel=1e-13)
    assert average.score("word").tokens == len(STREAM) - 1


def test_samples_approach_the_enumeration(model: rhn.Model) -> None:
    keep, samples = 0.7, 3000
    weights = np.prod(np.where(KEPT == 1.0, keep, 1 - keep), axis=1)  # (128,) probability of each choice
    p = probabilities_of_all_choices(keep)
    exact = weights @ p
    spread = np.sqrt(weights @ (p - exact) ** 2)
    average = MonteCarloAverage.empty(len(STREAM) - 1, legacy=False)
    options = Options(mc_samples=samples, mc_rows=500, bptt_length=5)
    rates = DropRates(drop_embedding=1 - keep, drop_state=1 - keep, drop_output=1 - keep)
    add_samples(model, STREAM, average, options, rates, seed=1)
    sampled = np.exp(average.log_sum) / samples
    # The tokens' errors are normal with this standard deviation; 4 of them are exceeded once in 16,000 times.
    assert (np.abs(sampled - exact) < 4 * spread / math.sqrt(samples)).all()
    assert len(average.pass_nats) == len(average.running_nats) == samples
    assert average.running_nats[-1] < average.running_nats[0]


@pytest.mark.parametrize(("rows", "bptt_length"), [(1, 5), (3, 5), (6, 1), (6, 100)])
def test_neither_rows_nor_windows_matter(model: rhn.Model, rows: int, bptt_length: int) -> None:
    rates = DropRates(0.3, 0.3, 0.3, 0.3)
    results = []
    for options in (OPTIONS, Options(mc_samples=6, mc_rows=rows, bptt_length=bptt_length)):
        average = MonteCarloAverage.empty(len(STREAM) - 1, legacy=False)
        add_samples(model, STREAM, average, options, rates, seed=2)
        results.append(average)
    a, b = results
    # A product of matrices may round differently with another number of rows.
    np.testing.assert_allclose(a.log_sum, b.log_sum, rtol=1e-12)
    np.testing.assert_allclose(a.running_nats, b.running_nats, rtol=1e-12)
    np.testing.assert_allclose(a.pass_nats, b.pass_nats, rtol=1e-12)


@pytest.mark.parametrize(("count", "legacy"), [(2, False), (3, False), (3, True)])
def test_several_processes_have_the_samples_of_one(model: rhn.Model, count: int, legacy: bool) -> None:
    """Also where the number of samples is no multiple of theirs, and none is thrown away but in the authors' way."""
    options, rates = Options(mc_samples=7, mc_rows=2, bptt_length=5, legacy_mc=legacy), DropRates(0.3, 0.3, 0.3, 0.3)

    def sample(processes: Processes) -> MonteCarloAverage:
        average = MonteCarloAverage.empty(len(STREAM) - 1, legacy)
        add_samples(model, STREAM, average, options, rates, seed=2, processes=processes)
        return average

    alone = sample(ALONE)
    assert alone.kept == 7
    for average in in_threads(count, sample):
        # A product of matrices may round differently with another number of rows.
        np.testing.assert_allclose(average.log_sum, alone.log_sum, rtol=1e-12)  # measured: 0
        np.testing.assert_allclose(average.running_nats, alone.running_nats, rtol=1e-12)
        np.testing.assert_allclose(average.pass_nats, alone.pass_nats, rtol=1e-12)


def test_masks_are_a_function_of_the_sample_alone() -> None:
    config = rhn.RHNConfig(5, 4, 2, num_layers=2, embedding_size=3, tie_weights=False, share_gate_masks=False)
    rates = DropRates(0.5, 0.4, 0.3, 0.2)
    together, alone = (sample_stream_masks(config, rates, 7, numbers) for numbers in (range(6), range(4, 5)))
    tokens = np.array([[1, 4, 1, 0]] * 6)
    masks = together.of_window(tokens)
    check_masks(config, masks, 6, 4)
    assert (masks.embedding[:, 0] == masks.embedding[:, 2]).all()  # the same word
    for all_rows, one_row in zip(_arrays(masks), _arrays(alone.of_window(tokens[:1])), strict=True):
        np.testing.assert_array_equal(np.moveaxis(all_rows, -2, 0)[4], np.moveaxis(one_row, -2, 0)[0])
    assert together.word_types is not None
    assert set(np.unique(together.word_types)) == {0.0, 2.0}
    legacy = sample_stream_masks(config, rates, 7, range(6), one_draw_for_all_words=True)
    assert legacy.word_types is not None
    assert (legacy.word_types == together.word_types[:, :1]).all()


def _arrays(masks: VariationalMasks) -> list[NDArray]:
    return [masks.embedding, *masks.input, *masks.state, masks.output]


def test_masks_are_drawn_as_specification_4_8_says() -> None:
    config = rhn.RHNConfig(5, 4, 2, num_layers=2, embedding_size=3, tie_weights=False, share_gate_masks=False)
    masks = sample_stream_masks(config, DropRates(0.5, 0.4, 0.3, 0.2, 0.6), 9, range(2, 4))
    parts = [masks.word_types, masks.others.output]
    for i in range(2):
        parts += [masks.others.input[i].swapaxes(0, 1), masks.others.state[i].swapaxes(0, 1)]
    parts += masks.others.update
    for index, (part, rate) in enumerate(zip(parts, (0.5, 0.2, 0.4, 0.3, 0.4, 0.3, 0.6, 0.6), strict=True)):
        for row, sample in enumerate((2, 3)):
            philox = np.random.Philox(
                key=np.array([9, 7], np.uint64), counter=np.array([0, index, sample, 0], np.uint64)
            )
            u = (philox.random_raw(part[row].size) >> np.uint64(11)) * 2.0**-53
            np.testing.assert_array_equal(part[row].ravel(), np.where(u < 1 - rate, 1 / (1 - rate), 0.0))


def test_samples_from_before_there_were_update_masks_are_continued(model: rhn.Model) -> None:
    before, now = (
        identity_of(model, STREAM, DropRates(0.1, 0.2, 0.3, 0.4, update), 1, False)["set of drop rates"]
        for update in (0.0, 0.5)
    )
    assert before == [0.1, 0.2, 0.3, 0.4]
    assert now == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_the_authors_way_throws_passes_away_by_their_score() -> None:
    passes = -np.array([[1.0, 2.0, 30.0], [7.0, 7.0, 6.0], [2.0, 1e-12, 25.0]])
    average = MonteCarloAverage.empty(3, legacy=True)
    for row in passes:
        average.add(row)
    # Kept by perplexity: 59,000 is not, 786 is not, 8,100 is not.
    assert average.kept == 0
    passes[:, 2] = [-3.0, -8.0, -1e-12]
    passes[1] = [-7.0, -7.0, -4.0]  # perplexity 403
    for row in passes:
        average.add(row)
    assert average.kept == 3
    assert len(average.pass_nats) == 6
    mean = np.clip(np.exp(passes).sum(axis=0) / 3, 1e-10, 1 - 1e-10)
    expected = np.mean([*-np.log(mean), -np.log(1e-10)])  # one token too many
    assert average.score("word").nats == pytest.approx(expected, rel=1e-12)


def test_the_authors_way_would_never_end_on_a_bad_model() -> None:
    hopeless = {**PARAMETERS, "softmax.bias": np.array([-40.0, -40.0, 0.0])}
    model = rhn.load_backend("reference").build(CONFIG, hopeless, "float64")
    average = MonteCarloAverage.empty(2, legacy=True)
    options = Options(mc_samples=100, mc_rows=50, legacy_mc=True, bptt_length=5)
    with pytest.raises(OptionError, match="legacy_mc=True is not accepted: none of 100 passes"):
        add_samples(model, np.array([2, 0, 1]), average, options, DropRates(0.25), seed=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mc_samples", 0),
        ("mc_rows", 1.5),
        ("legacy_mc", 1),
        ("part", "dev"),
        ("mc_file", "samples.npz"),
        ("mc_file", "no/such/folder/samples.safetensors"),
    ],
)
def test_impossible_options_are_named_before_anything_is_loaded(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"{name}={value!r} is not accepted: expected"):
        evaluate_mc("reference", {**vars(OPTIONS), "checkpoint": "nowhere", name: value}, {})


def test_a_run_of_samples_goes_on_where_it_stopped(
    call: Callable[..., Any], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"drop_embedding": 0.2, "drop_input": 0.3, "drop_state": 0.2, "drop_output": 0.3}
    whole = call(evaluate_mc, **rates, mc_samples=5, mc_rows=2, mc_file=str(checkpoint.with_name("w.safetensors")))
    call(evaluate_mc, **rates, mc_samples=3, mc_rows=2)
    assert call(evaluate_mc, **rates, mc_samples=5, mc_rows=2) == pytest.approx(whole, rel=1e-12)
    out = capsys.readouterr().out
    assert "continued from the 3 samples" in out
    assert "no dropout): bits per character" in out
    assert "mean of 5 samples, all kept): bits per character" in out
    figures = json.loads(checkpoint.with_name("model.mc-test.json").read_text())
    assert figures["samples"] == figures["passes"] == len(figures["value_after_each_sample"]) == 5
    assert figures["score"]["value"] == figures["value_after_each_sample"][-1]
    assert checkpoint.with_name("model.mc-test.png").read_bytes().startswith(b"\x89PNG")

    with pytest.raises(OptionError, match="drawn with another seed; name another file"):
        call(evaluate_mc, **rates, mc_samples=5, seed=2)
    with pytest.raises(OptionError, match="another set of drop rates"):
        call(evaluate_mc, **{**rates, "drop_state": 0.0}, mc_samples=5)


def test_an_interrupted_batch_loses_only_itself(model: rhn.Model, tmp_path: Path) -> None:
    file, identity, rates = tmp_path / "s.safetensors", {"legacy_mc": False}, DropRates(drop_state=0.5)
    average = MonteCarloAverage.empty(len(STREAM) - 1, legacy=False)

    def save_then_fail() -> None:
        average.save(file, identity)
        if average.kept == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_samples(model, STREAM, average, OPTIONS, rates, seed=1, after_batch=save_then_fail)
    resumed = MonteCarloAverage.load(file, identity)
    assert resumed.kept == 4
    whole = MonteCarloAverage.empty(len(STREAM) - 1, legacy=False)
    for one in (resumed, whole):
        add_samples(model, STREAM, one, OPTIONS, rates, seed=1)
    np.testing.assert_array_equal(resumed.log_sum, whole.log_sum)
    assert resumed.running_nats == whole.running_nats


def test_the_authors_way_says_so(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    call(evaluate_mc, legacy_mc=True, mc_samples=2, drop_embedding=0.25)
    assert "not comparable: one draw drops all words or none, and 2 of 2 passes were kept" in capsys.readouterr().out


def test_a_run_without_dropout_has_nothing_to_sample(call: Callable[..., Any]) -> None:
    with pytest.raises(OptionError, match="drop rates of 0 are not accepted"):
        call(evaluate_mc, drop_embedding=0.0, drop_input=0.0, drop_state=0.0, drop_output=0.0)


def test_samples_have_one_writer_and_leave_nothing_behind(call: Callable[..., Any], checkpoint: Path) -> None:
    file = checkpoint.with_name("samples.safetensors")
    leftover = checkpoint.with_name(".samples.safetensors.killed.tmp")
    leftover.touch()
    more = {"drop_state": 0.2, "mc_samples": 1, "mc_file": str(file)}
    with (
        one_writer(checkpoint.with_name(".samples.safetensors.lock"), "not to be seen"),
        pytest.raises(OptionError, match="another process is drawing samples for it"),
    ):
        call(evaluate_mc, **more)
    call(evaluate_mc, **more)
    assert file.exists()
    assert not leftover.exists()


@pytest.mark.parametrize("arrays", [{}, {"log_sum": np.zeros((2, 2))}, {"pass_nats": np.array([1])}])
def test_a_file_without_samples_is_one_sentence(tmp_path: Path, arrays: dict[str, Any]) -> None:
    whole = {"log_sum": np.zeros(2), "pass_nats": np.zeros(1), "running_nats": np.zeros(1)}
    file = tmp_path / "samples.safetensors"
    for metadata, content in (
        ({"monte_carlo": []}, whole),
        ({"monte_carlo": {}}, {**whole, **arrays} if arrays else {}),
    ):
        rhn.save_checkpoint(file, content, metadata)
        with pytest.raises(rhn.CheckpointError, match="holds no Monte Carlo samples"):
            MonteCarloAverage.load(file, {"legacy_mc": False})
