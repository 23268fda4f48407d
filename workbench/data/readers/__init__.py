"""One file a layout: each reader turns a folder into the rows of a catalog."""
