"""Reports: the page of a run, and the comparison of several runs."""
