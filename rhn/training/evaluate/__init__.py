"""The commands that open a checkpoint, one file or folder each: algorithm, command and figure."""
