"""Benchmarks: what is compared runs side by side in one process, in turn.

A benchmark is one file in this folder and one subcommand of `satmip bench` in `cli.py`.
"""
