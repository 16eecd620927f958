"""Contrastive losses over the global batch: pure mathematics that knows no method."""
