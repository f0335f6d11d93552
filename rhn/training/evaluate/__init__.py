"""The commands that evaluate a checkpoint, one file each: algorithm, command and figure."""
