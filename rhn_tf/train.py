"""Command line: `python -m rhn_tf.train [command] with [named configs] [option=value ...]`."""

from rhn.training.command_line import run

if __name__ == "__main__":
    run("tf")
