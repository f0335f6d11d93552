"""The code of README.md, so that tests can run what readers copy."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def python_example(module: str) -> str:
    """The one Python block of the README that imports from `module`."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (block,) = (block for block in blocks if f"from {module} import" in block)
    return block
