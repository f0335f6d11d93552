"""Recurrent Highway Networks for Keras 3 on TensorFlow.

>>> import tensorflow as tf
>>> from rhn_tf import RHN
>>> rhn = RHN(units=32, recurrence_depth=3, return_sequences=True, return_state=True)
>>> output, h_n = rhn(tf.zeros((4, 5, 16)))
>>> tuple(output.shape), tuple(h_n.shape)
((4, 5, 32), (4, 32))
"""

from rhn_tf import _command_line, _keras_backend  # noqa: F401  first: nothing else can be imported if they raise
from rhn_tf.cell import RHNCell
from rhn_tf.fast_recurrence import fast_recurrence
from rhn_tf.layer import RHN
from rhn_tf.model import RHNLanguageModel
from rhn_tf.recurrence import plain_recurrence

__all__ = ["RHN", "RHNCell", "RHNLanguageModel", "fast_recurrence", "plain_recurrence"]
