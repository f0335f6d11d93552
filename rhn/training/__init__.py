"""Training: truncated BPTT, evaluation, generation and the command line; drives any `rhn.Model`."""
