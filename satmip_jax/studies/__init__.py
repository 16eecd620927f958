"""Studies: sets of configs that are trained, scored and compared in one table and one plot.

A study is one small file in this folder and one line in `registry.STUDIES`. It lists its variants,
declares its options, and names the plot. `runner.py` does the rest, in the same way for all.
"""
