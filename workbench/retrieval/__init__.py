"""Embedding, galleries and evaluation."""
