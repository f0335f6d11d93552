"""The executable specification of a Recurrent Highway Network: NumPy and safetensors only."""
