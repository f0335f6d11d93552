"""The executable specification of a Recurrent Highway Network, in NumPy."""
