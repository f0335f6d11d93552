"""What is done with a checkpoint: one file per command, with its options, algorithm, command and picture."""
