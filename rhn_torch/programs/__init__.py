"""The recurrence inside programs that PyTorch makes of a model: compiled, exported or traced."""
