"""Must be imported first: makes Keras run on TensorFlow."""

_BACKENDS = ("jax", "torch", "openvino")  # the modules that Keras imports where it is configured for another backend

try:
    import keras

    configured = keras.config.backend()
except ModuleNotFoundError as error:
    if error.name not in _BACKENDS:
        raise
    configured = error.name

if configured != "tensorflow":
    raise ImportError(
        f"rhn_tf needs Keras on TensorFlow, but Keras is configured for {configured!r}: set the environment variable"
        ' KERAS_BACKEND=tensorflow (or "backend": "tensorflow" in ~/.keras/keras.json) before Keras is imported'
    )
