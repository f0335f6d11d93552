"""Command line: `python -m rhn_torch.search with [space] [named configs] [option=value ...]`."""

from rhn.training.search.command_line import run

if __name__ == "__main__":
    run("torch")
