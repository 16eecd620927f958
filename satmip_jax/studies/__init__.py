"""Studies: sets of configs that are run, scored and compared in one table and one plot.

A study is one small file in this folder and one line in `STUDIES`: it says which variants there
are and how they are drawn. `runner.py` does the rest, the same way for all.
"""
