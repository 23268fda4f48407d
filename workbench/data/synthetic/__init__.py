"""Sets drawn by code, deterministic by seed."""
