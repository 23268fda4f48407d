"""Figures, picture sheets and one-file reports: arrays, tables and records in, never models."""
