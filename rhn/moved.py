"""Modules that have moved: they can still be imported by their old names, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old name: new name. All of them moved with version 0.2.
MOVED = {
    "rhn.spec.checkpoint": "rhn.checkpoint",
    "rhn.spec.windows": "rhn.spec.arguments",
    "rhn.training.accepted": "rhn.training.options.accepted",
    "rhn.training.analyse_command": "rhn.training.evaluate.analyse.gates",
    "rhn.training.baseline": "rhn.training.evaluate.baseline",
    "rhn.training.charts": "rhn.training.report.charts",
    "rhn.training.comparison": "rhn.training.report.comparison",
    "rhn.training.console": "rhn.training.terminal.console",
    "rhn.training.dynamic_command": "rhn.training.evaluate.dynamic",
    "rhn.training.dynamic_evaluation": "rhn.training.evaluate.dynamic",
    "rhn.training.evaluate.cache": "rhn.training.evaluate.neural_cache",
    "rhn.training.evaluate.gates": "rhn.training.evaluate.analyse.gates",
    "rhn.training.evaluate.jacobian": "rhn.training.evaluate.analyse.jacobian",
    "rhn.training.evaluate.traces": "rhn.training.evaluate.analyse.traces",
    "rhn.training.evaluate_command": "rhn.training.evaluate.stream",
    "rhn.training.evaluation": "rhn.training.evaluate.stream",
    "rhn.training.experiment": "rhn.training.command_line",
    "rhn.training.gate_analysis": "rhn.training.evaluate.analyse.gates",
    "rhn.training.generate_command": "rhn.training.evaluate.generate",
    "rhn.training.generation": "rhn.training.evaluate.generate",
    "rhn.training.help": "rhn.training.terminal.help",
    "rhn.training.mc_command": "rhn.training.evaluate.monte_carlo",
    "rhn.training.meetings": "rhn.training.joint_decisions",
    "rhn.training.monte_carlo": "rhn.training.evaluate.monte_carlo",
    "rhn.training.opening": "rhn.training.run.checkpoint",
    "rhn.training.option_row": "rhn.training.options.row",
    "rhn.training.paper": "rhn.training.recipes.published_scores",
    "rhn.training.plan": "rhn.training.options.plan",
    "rhn.training.published": "rhn.training.recipes.published_scores",
    "rhn.training.report.card": "rhn.training.report.model_card",
    "rhn.training.report.templates": "rhn.training.report.render",
    "rhn.training.results": "rhn.training.evaluate.result",
    "rhn.training.run.saved": "rhn.training.run.saving",
    "rhn.training.run_folder": "rhn.training.run.folder",
    "rhn.training.run_page": "rhn.training.report.run",
    "rhn.training.run_record": "rhn.training.run.record",
    "rhn.training.search.spaces": "rhn.training.search.named_spaces",
    "rhn.training.tensorboard": "rhn.training.report.tensorboard",
    "rhn.training.train_command": "rhn.training.train",
    "rhn.training.tuned": "rhn.training.recipes.tuned",
    "rhn.training.user_errors": "rhn.training.terminal.user_errors",
    "rhn.training.words": "rhn.training.terminal.read_words",
    "rhn_conformance.authors": "rhn_conformance.cases.authors_data",
    "rhn_conformance.authors_exercises": "rhn_conformance.cases.authors",
    "rhn_conformance.compare": "rhn.compare",
    "rhn_conformance.covering": "rhn_conformance.cases.covering",
    "rhn_conformance.exact": "rhn_conformance.rewritten.exact",
    "rhn_conformance.expectations": "rhn_conformance.expected_failures",
    "rhn_conformance.frozen": "rhn_conformance.frozen_vectors",
    "rhn_conformance.inputs": "rhn_conformance.cases.numbers",
    "rhn_conformance.mutants": "rhn_conformance.rewritten.mutants",
    "rhn_conformance.page": "rhn_conformance.report.page",
    "rhn_conformance.preflight": "rhn.preflight",
    "rhn_conformance.rewriting": "rhn_conformance.rewritten.rewrite",
    "rhn_conformance.trajectory": "rhn_conformance.cases.trajectory",
    "rhn_jax.layer_backend": "rhn_jax.backend.layer",
    "rhn_jax.parallel": "rhn_jax.backend.processes",
    "rhn_jax.programs": "rhn_jax.backend.programs",
    "rhn_tf.layer_backend": "rhn_tf.backend.layer",
    "rhn_tf.parallel": "rhn_tf.backend.processes",
    "rhn_torch.compiled": "rhn_torch.programs.compiled",
    "rhn_torch.cuda_graph": "rhn_torch.gpu.cuda_graph",
    "rhn_torch.exported": "rhn_torch.programs.exported",
    "rhn_torch.layer_backend": "rhn_torch.backend.layer",
    "rhn_torch.matmul": "rhn_torch.precision",
    "rhn_torch.parallel": "rhn_torch.backend.processes",
    "rhn_torch.triton_kernels": "rhn_torch.gpu.triton_kernels",
    "rhn_torch.triton_recurrence": "rhn_torch.gpu.triton_recurrence",
}


class _MovedModule(MetaPathFinder, Loader):
    """Finds a module under its old name."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Replace the empty module that Python has made by the module of the new name."""
        new_name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} has moved to {new_name}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new_name)


def keep_old_names() -> None:
    """Let Python find the modules of `MOVED`, if it finds no real module of that name."""
    if not any(isinstance(finder, _MovedModule) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModule())
