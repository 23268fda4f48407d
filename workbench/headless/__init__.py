"""Notebooks without a person: strict parameters, supervisor, study, list of runs."""
