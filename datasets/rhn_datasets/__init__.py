"""Corpora for language models: loading, vocabularies, and windows for truncated backpropagation through time."""

from rhn_datasets.batching import Windows, windows
from rhn_datasets.corpora import CORPORA, Corpus, load_corpus
from rhn_datasets.files import DataError
from rhn_datasets.vocabulary import Vocabulary

__all__ = ["CORPORA", "Corpus", "DataError", "Vocabulary", "Windows", "load_corpus", "windows"]
