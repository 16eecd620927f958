"""One working example of each extension: a method, a data set, a probe (one file each)."""
