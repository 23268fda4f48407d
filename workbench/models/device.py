"""Which device computes."""

import torch


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on: `auto` takes a CUDA GPU when there is one, else the CPU.

    Raises:
        ValueError: a CUDA device is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r}, but this machine has no CUDA GPU that torch can use; take 'auto' or 'cpu'."
        )
    return chosen
