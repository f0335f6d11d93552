"""Published scores: of the paper (Zilly et al., ICML 2017, arXiv 1607.03474), and of later publications."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rhn.training.score import UNITS
from rhn_datasets import CORPORA

PAPER = "Zilly et al. 2017"


@dataclass(frozen=True)
class PaperRow:
    """One published model.

    Attributes:
        dataset: name of the corpus.
        depth: micro-steps per time step, L; None if it is not published, or the model has none.
        units: units of the single layer, H; None if they are not published.
        tied: whether embedding and softmax share one matrix.
        parameters: number of parameters as printed, mostly rounded to a thousand.
        valid: score on the validation part; None if none is published.
        test: score on the test part.
        embedding_size: width of the embedding; None is `units`.
        remark: how the row differs from the main row of the same architecture, or from the recipe; "" if it does not.
        source: the publication.
        recipe: the recipe of this project that trains such a model, for rows of others than the paper.
    """

    dataset: str
    depth: int | None
    units: int | None
    tied: bool
    parameters: int
    valid: float | None
    test: float
    embedding_size: int | None = None
    remark: str = ""
    source: str = PAPER
    recipe: str | None = None

    @property
    def unit(self) -> str:
        """The unit of both scores: perplexity, or bits per character or byte."""
        return UNITS[CORPORA[self.dataset].levels[0]]

    def printed(self, part: str) -> str:
        """The score on the "valid" or "test" part with the published digits; "-" if none is published."""
        score = {"valid": self.valid, "test": self.test}[part]
        if score is None:
            return "-"
        return str(score) if self.unit == "perplexity" else f"{score:.2f}"


# Penn Treebank: depth, units; valid, test and parameters without tied weights, then with them.
_PTB = (
    (1, 1275, (92.4, 89.2, 32_015_000), (93.2, 90.6, 19_265_000)),
    (2, 1180, (79.0, 76.3, 31_969_000), (76.9, 75.1, 20_169_000)),
    (3, 1110, (75.0, 72.6, 32_073_000), (72.7, 70.6, 20_973_000)),
    (4, 1050, (73.3, 70.9, 32_043_000), (70.8, 68.6, 21_543_000)),
    (5, 1000, (72.0, 69.8, 32_020_000), (69.7, 67.7, 22_020_000)),
    (6, 960, (71.9, 69.3, 32_124_000), (69.1, 66.6, 22_524_000)),
    (7, 920, (71.7, 68.7, 31_965_000), (68.7, 66.4, 22_765_000)),
    (8, 890, (71.2, 68.5, 32_082_000), (68.2, 66.1, 23_182_000)),
    (9, 860, (71.3, 68.5, 32_017_000), (68.1, 66.0, 23_417_000)),
    (10, 830, (71.3, 68.3, 31_782_000), (68.3, 66.0, 23_482_000)),
)

_MELIS, _SPARSE = "Melis et al. 2018", "half of whose weights are zero"

PAPER_ROWS: tuple[PaperRow, ...] = (
    *(
        PaperRow("ptb", depth, units, tied, parameters, valid, test)
        for depth, units, *pair in _PTB
        for tied, (valid, test, parameters) in zip((False, True), pair, strict=True)
    ),
    PaperRow("ptb", 10, 830, True, 23_482_000, 67.9, 65.4, remark="smaller weight decay"),
    PaperRow("ptb", 5, 1000, True, 22_020_000, None, 64.4, remark="MC dropout, 1000 samples"),
    # The authors' character models embed into as many dimensions as there are symbols.
    PaperRow("enwik8", 5, 1500, False, 23_480_000, None, 1.31, embedding_size=205),
    PaperRow("enwik8", 10, 1000, False, 20_677_000, None, 1.30, embedding_size=205),
    PaperRow("enwik8", 10, 1500, False, 45_994_730, None, 1.27, embedding_size=205),
    PaperRow("text8", 10, 1000, False, 20_102_000, None, 1.29, embedding_size=27),
    PaperRow("text8", 10, 1500, False, 45_152_000, None, 1.27, embedding_size=27),
    # Of others. Melis et al. give sizes in millions, and neither units nor drop rates.
    *(
        PaperRow(dataset, depth, units, tied, parameters, valid, test, None, remark, source, recipe)
        for recipe, dataset, depth, units, tied, parameters, valid, test, remark, source in (
            ("ptb_ntasgd", "ptb", 10, 830, True, 23_482_400, 62.1, 60.35, _SPARSE, "Liu et al. 2021"),
            ("ptb_melis_10m", "ptb", 5, None, True, 10_000_000, 66.0, 63.5, "", _MELIS),
            ("ptb_melis_24m", "ptb", 5, None, True, 24_000_000, 64.8, 62.2, "", _MELIS),
            ("ptb_melis_24m_update", "ptb", 5, None, True, 24_000_000, 63.4, 61.0, "update dropout", _MELIS),
            ("wikitext2_melis_24m", "wikitext2", 5, None, True, 24_000_000, 78.1, 75.6, "", _MELIS),
            ("ptb_char", "ptb_char", None, None, False, 3_000_000, None, 1.36, "an LSTM", "Bai et al. 2018"),
        )
    ),
)


def paper_result(options: Mapping[str, Any]) -> PaperRow | None:
    """The model of the paper with the same data and architecture as a run, or None.

    The training is not compared: a run with other dropout or fewer epochs has the same row. Rows with a remark are
    never chosen, because no option of a training run expresses the remark.

    Args:
        options: options of the run, by the names of the command line; if one is missing, no row fits.
    """
    for row in PAPER_ROWS:
        architecture = {
            "dataset": row.dataset,
            "recurrence_depth": row.depth,
            "hidden_size": row.units,
            "tie_weights": row.tied,
            "num_layers": 1,
            "couple_gates": True,
            "activation": "tanh",
        }
        if (
            row.source == PAPER
            and not row.remark
            and all(options.get(name) == value for name, value in architecture.items())
            and (options.get("embedding_size") or row.units) == (row.embedding_size or row.units)
        ):
            return row
    return None


def published_for(recipe: str) -> PaperRow | None:
    """The model of others that `recipe` is to be compared with, or None."""
    return next((row for row in PAPER_ROWS if row.recipe == recipe), None)
