"""Meshes and sharding rules, processes on several hosts, preemption."""
