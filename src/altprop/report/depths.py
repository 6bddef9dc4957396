"""What depth does: accuracy, time and memory of a step, for contenders that were run at several depths."""

import pandas as pd

from altprop.bench import stats

#: The column, and what it is called.
QUANTITIES = {"accuracy": "test accuracy", "step": "milliseconds a step", "bytes": "peak bytes of a step"}


def frame(results: pd.DataFrame) -> pd.DataFrame:
    """One row a task, contender and depth: `accuracy`, `low`, `high`; `step` (median milliseconds); `bytes` (peak)."""
    last = stats.final(results, "test").drop_duplicates(["label", "task", "net", "depth", "seed", "run"])
    last = last[last["state"] != "unsupported"].copy()
    last["step"] = 1000 * last["train_seconds"] / (last["samples"].where(last["samples"] > 0) / last["batch_size"])
    keys = ["task", "net", "label"]
    last = last[last.groupby(keys)["depth"].transform("nunique") > 1]
    rows = []
    for (task, net, label, depth), group in last.groupby([*keys, "depth"], sort=False):
        mean, low, high = stats.interval(group["value"])
        cost = {"step": group["step"].median(), "bytes": group["peak_step_bytes"].max()}
        rows.append({"task": task, "net": net, "label": label, "rule": group["rule"].iloc[0], "depth": depth,
                     "accuracy": mean, "low": low, "high": high, **cost})  # fmt: skip
    columns = ["task", "net", "label", "rule", "depth", "accuracy", "low", "high", "step", "bytes"]
    return pd.DataFrame(rows, columns=columns).sort_values([*keys, "depth"], ignore_index=True)
