"""A Jupyter-first research workbench for few-shot product recognition and re-identification."""
