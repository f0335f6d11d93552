"""Reports: the page of a run, the comparison of several runs, the page of a search, the card of a model."""
