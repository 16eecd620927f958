"""Use of trained models: embeddings of images and metadata, and export to other formats."""
