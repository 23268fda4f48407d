"""What runs inside a Triton server: copied as it is into bundles, so these files know nothing of the workbench.

Each holds a model of Triton's Python backend and the functions it is made of, for numpy 1.26 and later, and reads the JSON
or arrays that lie beside it. `triton_python_backend_utils` exists only in the server: it is imported when a model starts.
"""
