"""One run's folder and its truth; knows nothing of images, models or notebooks above it."""
