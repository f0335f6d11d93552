"""docs/reliability.md says what the committed record of the campaign says."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CAMPAIGN = ROOT / "tests" / "campaign"
BACKENDS = ("reference", "torch", "tf", "jax")
sys.path.insert(0, str(CAMPAIGN))
from tally import Tally, keep, kept, table  # noqa: E402

RECORD = CAMPAIGN / "record.json"
PAGE = ROOT / "docs" / "reliability.md"


def test_the_table_is_that_of_the_record() -> None:
    assert table(kept(RECORD)) in PAGE.read_text()


def test_the_sentences_about_the_table_are_true() -> None:
    tallies, page = kept(RECORD), " ".join(PAGE.read_text().split())
    assert not any(tally.failures or tally.skipped for tally in tallies)
    tried = {tally.area: tally.tried for tally in tallies}
    kills = {area: count for area, count in tried.items() if area.startswith("kills of ")}
    assert sorted(kills) == sorted(f"kills of {what}, {b}" for what in ("training", "evaluate_mc") for b in BACKENDS)
    assert min(kills.values()) > 0
    assert sum(kills.values()) >= 250
    assert f"These are {sum(kills.values())} kills" in page
    options = sum(count for area, count in tried.items() if area.startswith("wrong options"))
    assert f"Of the 5,250 wrong options that are drawn, {5250 - options} are not tried" in page

    seeds: dict[str, list[str]] = {backend: [] for backend in BACKENDS}
    for part in json.loads(RECORD.read_text()):
        area, seed = re.fullmatch(r"(.*) \(seed (\d+)\)", part).groups()
        if area.startswith("kills of"):
            seeds[area.rsplit(", ", 1)[1]].append(seed)
        else:
            assert seed == "1"
    assert {backend: sorted(of) for backend, of in seeds.items()} == {
        "reference": ["1", "2", "3", "4"],
        "torch": ["2", "3"],
        "jax": ["2", "3"],
        "tf": ["2"],
    }
    wanted = "in the reference with seeds 1 to 4, in PyTorch and JAX with seeds 2 and 3, in TensorFlow with seed 2"
    assert wanted in page


def test_parts_are_kept_and_added_up(tmp_path: Path) -> None:
    first, second = Tally("kills"), Tally("kills")
    first.survived("in the imports")
    second.survived("in the imports")
    second.failed("lost\nall")
    record = tmp_path / "record.json"
    for part, tally in {"seed 1": second, "seed 2": second}.items():
        keep(record, part, [tally])
    keep(record, "seed 1", [first])  # in place of what was there
    (total,) = kept(record)
    assert (total.tried, total.failures, total.kinds) == (3, ["lost | all"], {"in the imports": 2})
    assert "| kills | 3 | 2 | 1 | in the imports 2 |" in table([total])
