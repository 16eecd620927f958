"""Meshes and sharding rules, runs of several processes, preemption."""
