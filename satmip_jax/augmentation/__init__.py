"""Augmented views, cut and coloured on the device inside the jitted step."""
