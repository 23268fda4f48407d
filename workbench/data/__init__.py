"""Cards, catalogs, decoding and synthetic sets."""
