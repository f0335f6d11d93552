"""Must be imported before TensorFlow: silences TensorFlow's messages in `python -m rhn_tf.train`, and only there."""

import os
import sys

# While Python imports the package of a module to run with -m, the program's name is only "-m".
_is_command = sys.argv[:1] == ["-m"] and "rhn_tf.train" in sys.orig_argv

if _is_command and "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # errors too: an absent GPU is logged as one, and others are raised
    # TensorFlow writes about an absent GPU before it reads this variable, and not through Python's stderr.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow  # noqa: F401  only so that it is loaded meanwhile
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
