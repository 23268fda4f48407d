"""What was measured as metrics, as one table and in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from workbench.retrieval.stats import Metric

COLUMNS = (
    *("task", "num_rows", "contender", "does", "seconds", "ratio", "low", "high", "repetitions"),
    *("compared", "difference", "agrees"),
)


@dataclass(frozen=True)
class Conclusion:
    """The ratios of the workbench in a line, and what else a reader should know, by name."""

    answer: str
    details: dict[str, str]


def ratio_metrics(table: pd.DataFrame, task: str, base: str, conditions: str) -> dict[str, Metric]:
    """Returns "ratio/TASK/CONTENDER" for a table of `time_contenders`; n is the number of rounds, the interval their range."""
    line = f"{task}: time as a ratio to {base}, least of the rounds, which take turns; {conditions}"
    rows = table[["contender", "ratio", "low", "high", "repetitions", "does"]].to_numpy(dtype=object).tolist()
    return {
        f"ratio/{task}/{name}": Metric(ratio, low, high, int(rounds), f"{line}; {does}".rstrip("; "))
        for name, ratio, low, high, rounds, does in rows
    }


def say_ratios(table: pd.DataFrame, base: str) -> str:
    """Returns in a sentence how ours, its fastest and its slowest peer compare with the base, and who gives another answer."""
    rows = table.loc[table["contender"] != base, ["contender", "ours", "ratio"]].to_numpy(dtype=object).tolist()
    ours = [(ratio, name) for name, is_ours, ratio in rows if is_ours]
    peers = sorted((ratio, name) for name, is_ours, ratio in rows if not is_ours)
    words = [f"{name} takes {_short(ratio)} times {base}" for ratio, name in ours[:1]]
    words += [f"{name} {_short(ratio)} times" for ratio, name in [*peers[:1], *peers[1:][-1:]]]
    wrong = [str(name) for name, agrees in zip(table["contender"], table["agrees"], strict=True) if agrees is False]
    sentence = "; ".join(words)
    return f"{sentence[:1].upper()}{sentence[1:]}{'; another answer: ' + ', '.join(wrong) if wrong else ''}."


def say_speed(table: pd.DataFrame, what: str) -> str:
    """Returns in a sentence which share of the base's images per second ours reaches."""
    speed = table.set_index("contender")["images_per_s"]
    share = float(speed["workbench"]) / float(speed.iloc[0])
    return f"Ours does {share:.0%} of the {speed.iloc[0]:,.1f} images/s of {what}."


def memory_metrics(table: pd.DataFrame, task: str, conditions: str) -> dict[str, Metric]:
    """Returns "memory_mib/TASK/CONTENDER" for a table of `measure_memory`; what did not fit has none."""
    line = f"{task}: peak above the inputs in a process of its own, MiB; {conditions}"
    rows = table[["contender", "above_mib"]].dropna().to_numpy(dtype=object).tolist()
    return {f"memory_mib/{task}/{name}": Metric(mib, mib, mib, 1, line) for name, mib in rows}


def say_memory(table: pd.DataFrame) -> str:
    """Returns in a sentence what ours takes and what the contender takes that takes most."""
    above = table.set_index("contender")["above_mib"].astype(float)
    words = f"Ours takes {above['workbench']:,.0f} MiB above the inputs"
    name = str(above.fillna(float("inf")).idxmax())
    if name == "workbench":
        return f"{words}."
    most = "did not fit" if pd.isna(above[name]) else f"takes {above[name]:,.0f}"
    return f"{words}; {name} {most}."


def coverage_metrics(table: pd.DataFrame) -> dict[str, Metric]:
    """Returns "coverage/CLASSES/CLASS SIZES/ACCURACY/DRAWS/AVERAGE" for a table of `coverage.simulate_coverage`."""
    world = ["num_classes", "class_sizes", "accuracy", "draws", "average"]
    rows = table[[*world, "covered", "low", "high", "n"]].to_numpy(dtype=object).tolist()
    line = "share of 95 % intervals that hold the truth, classes, queries and draws drawn anew in each of n trials"
    return {
        "coverage/" + "/".join(map(str, row[:5])): Metric(row[5], row[6], row[7], int(row[8]), line) for row in rows
    }


def say_coverage(table: pd.DataFrame) -> str:
    """Returns in a sentence between which shares the intervals hold the truth."""
    least, most = float(table["covered"].min()), float(table["covered"].max())
    return f"Between {least:.1%} and {most:.1%} of the intervals hold the truth."


def collect_times(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns all tables of `time_contenders` as one, with the columns of `COLUMNS`; empty without a table."""
    timed = [rows.assign(task=task) for task, rows in tables.items()]
    return (
        pd.concat(timed, ignore_index=True).reindex(columns=list(COLUMNS)) if timed else pd.DataFrame(columns=COLUMNS)
    )


def conclude(times: pd.DataFrame) -> Conclusion:
    """Returns ours in each task (at the largest size of a growth) and how many answers agree.

    Args:
        times: of `collect_times`.
    """
    ours = times[times["contender"] == "workbench"].drop_duplicates("task", keep="last")
    words = [f"{task} {_short(ratio)}" for task, ratio in zip(ours["task"], ours["ratio"], strict=True)]
    compared = times[times["agrees"].notna() & ~times["contender"].str.startswith("workbench")]
    right = compared["agrees"].astype(bool)
    wrong = sorted({f"{row[0]} ({row[1]})" for row in compared.loc[~right, ["contender", "task"]].to_numpy().tolist()})
    return Conclusion(
        ", ".join(words) or "no part was timed",
        {
            "answers that agree with ours": f"{int(right.sum())} of {len(compared)}",
            "another answer": ", ".join(wrong) or "none",
        },
    )


def _short(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"
