"""Recipes: named sets of options, and the scores published for such models.

Each recipe holds only the options that differ from the defaults. The defaults (`rhn.training.options`) are the settings
that all rows of the paper's Penn Treebank tables share.
"""

from __future__ import annotations

from typing import Any

from rhn.training.recipes.demo import DEMO
from rhn.training.recipes.paper import PAPER_RECIPES
from rhn.training.recipes.tuned import TUNED

RECIPES: dict[str, dict[str, Any]] = {"demo": DEMO, **PAPER_RECIPES, **TUNED}
