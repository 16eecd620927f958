"""The paper's comparison: its tables, figures and claims, by one command.

It is a composition of the other studies. Runs of equal training are trained once: the SatMIP of the
comparison of methods is the last point of its convergence, the SatMIP with all fields, and the one
whose metadata encoder is scored.
"""
