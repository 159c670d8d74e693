"""How good the samples are: a classifier, and distances on its features."""
