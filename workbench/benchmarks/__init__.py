"""Ratios against peers and limits, for notebook 09: same inputs, same run, answers compared."""
