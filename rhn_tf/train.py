"""The command line: `python -m rhn_tf.train [COMMAND] [with [RECIPE] [OPTION=VALUE ...]]`."""

from rhn.training.command_line import run

if __name__ == "__main__":
    run("tf")
