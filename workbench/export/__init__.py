"""Out of the workbench: ONNX files that prove themselves, the runtimes that answer from them, what is deployed."""
