"""Unpack the sdist of a folder, install it in an environment of its own and run its tests there, but for the ports'.

python tools/check_sdist.py FOLDER
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

TESTS = ("tests/spec", "tests/datasets", "tests/docs")
PACKAGES = ("pytest>=8", "pytest-timeout>=2.3.1", "hypothesis>=6.100")


def main(folder: Path) -> None:
    """Raise CalledProcessError if a test fails."""
    (sdist,) = folder.resolve().glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as temporary:
        with tarfile.open(sdist) as archive:
            archive.extractall(temporary, filter="data")
        (root,) = Path(temporary).iterdir()
        environment = Path(temporary, "environment")
        venv.create(environment, with_pip=True)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", f"{root}[train]", *PACKAGES], check=True)
        subprocess.run([python, "-m", "pytest", "-q", *TESTS], cwd=root, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
