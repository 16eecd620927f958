"""Benchmarks: alternatives run side by side in one process, in turn.

A benchmark is one file in this folder and one subcommand of `satmip bench` in `cli.py`.
"""
