"""The figures of the encode job as lines for people; the same numbers as its JSON."""

from __future__ import annotations

from typing import Any

#: With more of other processes than this, shares by the clock say little.
QUIET_CORES = 0.1


def table(found: dict[str, Any]) -> str:
    """Lines of what was measured."""
    nodes = found["settings"]["nodes"]
    lines = [f"{found['cores']} cores of {found['cpu']}, {nodes} nodes, broker beside"]
    for modality, run in found["encode"].items():
        cpu = ", ".join(f"{n} {us}" for n, us in run["cpu_us_per_event"].items())
        lines += [
            f"{modality:<6} {run['events_per_s']:>9,} events/s, "
            f"{run['share_of_bound']} of the bound {run['bound_events_per_s']:,}; "
            f"in CPU time {run['share_of_bound_in_cpu']}",
            f"{'':7}the median of {', '.join(str(share) for share in run['shares'])}",
            f"{'':7}beside a bare loop in calls as large as the job's: "
            f"{run['share_in_calls']}",
            f"{'':7}bare loop {run['raw_forward_per_s']:,} events/s on a core, "
            f"Kafka {run['raw_kafka']['us_per_event']} us an event",
            f"{'':7}CPU an event: {cpu}; others took {run['other_cores']} cores",
        ]
    if any(run["other_cores"] > QUIET_CORES for run in found["encode"].values()):
        lines.append("other processes were at work: only shares in CPU time count")
    cache = found["cache"]
    lines.append(
        f"repeats: {cache['encoded']} of {cache['events']} events of "
        f"{cache['payloads']} payloads were encoded"
    )
    kept = found["memory"]
    for name, one in kept["nodes"].items():
        lines.append(f"{name}: {one['node_mb']} MB, decoding {one['decode_mb']} MB")
    fixed = ", ".join(f"{name} {mb}" for name, mb in kept["fixed"].items())
    lines.append(
        f"together {kept['resident_mb']} MB of planned {kept['planned_mb']}: "
        f"{nodes} x (model {kept['model_mb']}, {fixed})"
    )
    if "growth" in found:
        told = found["growth"]
        lines.append(
            f"memory grew by {told['growth']:.1%} in {told['minutes']} minutes"
        )
    lines.append(f"missing: {found['missing']}, took {found['seconds']:.0f} s")
    return "\n".join(lines)
