"""How an embedder does between before and after its training, weight by weight on the straight line (WiSE-FT)."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.models.embedder import Embedder
from workbench.models.interpolation import interpolate
from workbench.retrieval.before_after import compare_embedders
from workbench.retrieval.identification import IdentificationPlan
from workbench.retrieval.recognition import RecognitionPlan
from workbench.retrieval.stats import Metric

SHARES = tuple(number / 10 for number in range(11))
_COLUMNS = ("share", "name", "question", "value", "low", "high", "n")
_DIFFERENCE = ("difference", "difference_low", "difference_high")


def sweep_interpolation(
    plan: RecognitionPlan | IdentificationPlan,
    before: Embedder,
    after: Embedder,
    classes: str,
    shares: Sequence[float] = SHARES,
    *,
    draws: int = 5,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """One row a share and number of the plan, as `report.training_figures.interpolation_curve` draws it.

    Columns: share (of after's weights), name (of the metric), question (in words), value, low, high, n; difference,
    difference_low and difference_high (to `before`, paired by query and draw); protocol.

    The best share on these images is found on these images: it promises more than it will keep elsewhere. Choose the share
    on one plan (validation images) and report it on another, or report 0.5, which the authors chose beforehand.

    Args:
        plan, before, after, classes, draws, seed, options: see `before_after.compare_embedders`. Each share costs one pass
            over the plan's images; embeddings are cached by the weights' fingerprint, so that a second call is quick.
        shares: ascending, 0 to 1.

    Raises:
        ValueError: shares that do not rise within 0 to 1, or embedders that cannot be interpolated; nothing is embedded
            then.
    """
    if not shares or list(shares) != sorted(set(shares)) or shares[0] < 0 or shares[-1] > 1:
        raise ValueError(f"shares rise and lie within 0 to 1; found {list(shares)}.")
    interpolate(before, after, 1.0)  # refuses what cannot be interpolated before the first image is embedded
    rows = []
    for share in shares:
        mixed = interpolate(before, after, share)
        for change in compare_embedders(plan, before, mixed, classes, draws=draws, seed=seed, **options):
            found, difference = change.after, change.difference
            values = (found.value, found.low, found.high, found.n, difference.value, difference.low, difference.high)
            rows.append((share, change.name, change.question, *values, found.protocol))
    return pd.DataFrame(rows, columns=[*_COLUMNS, *_DIFFERENCE, "protocol"])


def interpolation_metrics(swept: pd.DataFrame, share: float) -> dict[str, Metric]:
    """The numbers of one share by name, under `wise_ft=<share>/`.

    Args:
        swept: from `sweep_interpolation`.
        share: chosen before the sweep was seen; 0.5 is the authors' (Wortsman et al., CVPR 2022, section 3).

    Raises:
        ValueError: a share that was not swept.
    """
    rows = swept[swept["share"] == share]
    if rows.empty:
        raise ValueError(f"Share {share} was not swept; there are {sorted(set(swept['share']))}.")
    columns = ["name", "value", "low", "high", "n", "protocol"]
    return {
        f"wise_ft={share:g}/{name}": Metric(value, low, high, n, protocol)
        for name, value, low, high, n, protocol in rows[columns].itertuples(index=False, name=None)
    }
