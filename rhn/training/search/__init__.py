"""Hyperparameter search: many training runs in one folder, which several processes can share."""
