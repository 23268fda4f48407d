"""What each of three processes finds when they share, add up and gather: python group_checks.py FOLDER writes <rank>.json."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.training import distributed


def _refusal(action: Any, *arguments: Any) -> str:
    try:
        action(*arguments)
    except (OSError, RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def main(folder: Path) -> None:
    """Calls every function once, with values that differ from process to process."""
    with distributed.joined_group("cpu") as device:
        rank, world = distributed.rank_and_world()
        found: dict[str, Any] = {"device": device, "world": world, "writer": distributed.is_writer()}
        part = distributed.own_part(np.arange(7))
        found["part"] = part.tolist()
        found["gathered"] = distributed.gather_parts(torch.from_numpy(part)[:, None] * 10).tolist()
        tensors = [torch.full((2, 2), 10.0**rank), torch.tensor([rank]), torch.tensor([0.5, rank])]
        distributed.add_up(tensors)
        found["sums"] = [tensor.tolist() for tensor in tensors]
        some, none, frozen = (nn.Parameter(torch.zeros(2)) for _ in range(3))
        frozen.requires_grad_(False)
        if rank == 1:
            some.grad = torch.tensor([3.0, 4.0])
        distributed.add_up_gradients([some, none, frozen])
        found["gradients"] = [None if one.grad is None else one.grad.tolist() for one in (some, none, frozen)]
        norms = nn.ModuleList([nn.BatchNorm1d(1, momentum=1.0), nn.BatchNorm1d(1, momentum=1.0)])
        for norm in norms:
            norm(torch.tensor([[rank * 3.0], [rank * 3.0 + 2.0]]))  # mean 1, 4, 7; unbiased variance 2
        norms[1].eval()
        distributed.average_statistics(norms)
        found["statistics"] = [[norm.running_mean.item(), norm.running_var.item()] for norm in norms]  # type: ignore[operator]
        found["anywhere"] = [distributed.anywhere(rank == 2), distributed.anywhere(False)]
        torch.manual_seed(0)
        distributed.draw_apart(7, 1)
        found["draw"] = torch.rand(3).tolist()
        written = folder / "written"
        distributed.by_writer(lambda: written.write_text(str(rank)))
        found["written"] = written.read_text()  # there as soon as by_writer returns
        found["write refused"] = _refusal(distributed.by_writer, (folder / "no" / "such").touch)
        found["unlike"] = _refusal(distributed.check_alike, "first weights", rank // 2)
        found["too few"] = _refusal(distributed.own_part, np.arange(2))
        (folder / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
