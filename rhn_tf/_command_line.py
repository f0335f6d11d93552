"""Must be imported before TensorFlow: silences TensorFlow's messages in `python -m rhn_tf.train`, and only there."""

import os
import sys

# While Python imports the package of a module that it was told to run with -m, that is all the program's name.
_is_command = sys.argv[:1] == ["-m"] and "rhn_tf.train" in sys.orig_argv

if _is_command and "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no errors either: an absent GPU is one, and those that matter are raised
    # TensorFlow writes of an absent GPU before it reads that, past Python's own stderr.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401  only so that it is loaded meanwhile
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
