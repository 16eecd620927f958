"""The training loop: set-up, one jitted step, optimizer, monitoring, logs."""
