"""Contrastive losses over the global batch: pure mathematics, independent of any method."""
