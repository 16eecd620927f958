"""Files, console, processes and the machine: what every other folder may use."""
