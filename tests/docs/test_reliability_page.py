"""docs/reliability.md says what the committed record of the campaign says."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CAMPAIGN = ROOT / "tests" / "campaign"
sys.path.insert(0, str(CAMPAIGN))
from tally import Tally, keep, kept, table  # noqa: E402


def test_the_table_is_that_of_the_record() -> None:
    assert table(kept(CAMPAIGN / "record.json")) in (ROOT / "docs" / "reliability.md").read_text()


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
