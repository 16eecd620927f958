"""Augmented views, computed on the device inside the jitted step."""
