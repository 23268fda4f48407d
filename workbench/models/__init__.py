"""Trunks, heads and the embedder they make."""
