"""Files, log messages, worker processes, the environment: services for all other folders."""
