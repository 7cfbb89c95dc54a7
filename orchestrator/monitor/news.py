"""Events of a run as sentences for people."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something that happened to a run."""

    at: float
    """Seconds since 1970."""
    attempt: int
    kind: str
    """The event's name in the log."""
    text: str
    is_bad: bool
    """Whether a person should look."""
    details: dict[str, Any]
    """The event as it was logged."""


_BAD = (
    "passed_over",
    "diverged",
    "refused",
    "rolled_back",
    "fault",
    "fail",
    "lost",
    "straggler",
    "slow",
    "spike",
    "full",
    "error",
    "differ",
)


def news_of(event: dict[str, Any], *, attempt: int) -> News:
    """The sentence for an event; one that isn't known is shown with all that it says."""
    kind = str(event.get("event", "?"))
    at = event.get("time")
    return News(
        at=float(at) if isinstance(at, (int, float)) else 0.0,
        attempt=attempt,
        kind=kind,
        text=_sentence(event) or _plainly(kind, event),
        is_bad=any(word in kind for word in _BAD) and "ended" not in kind,
        details=event,
    )


def _sentence(event: dict[str, Any]) -> str | None:
    match event:
        case {"event": "training_starts", "world_size": workers}:
            return f"training begins on {_count(workers, 'worker')}"
        case {"event": "training_resumes", "step": step, "checkpoint": checkpoint, "world_size": workers}:
            return f"training goes on at step {step} from {checkpoint} on {_count(workers, 'worker')}"
        case {"event": "first_step", "first_step_s": float(seconds), "compile_s": float(compiling)}:
            compiled = f", of which {compiling:.1f} s went into compiling kernels" if compiling else ""
            return f"the first step was done {seconds:.1f} s after the network was set up{compiled}"
        case {"event": "cuda_graphs", "graphs": "replayed"}:
            return "steps are recorded, and replayed from now on"
        case {"event": "cuda_graphs", "graphs": "warming up"}:
            return "steps run as they are before they are recorded"
        case {"event": "cuda_graphs", "graphs": why}:
            return f"steps can't be recorded and run as they are: {why}"
        case {"event": "evaluated", "epoch": epoch, "top1": float(top1), "top5": float(top5)}:
            return f"epoch {epoch}: top-1 {top1:.2f} %, top-5 {top5:.2f} %"
        case {"event": "tested", "step": step, "top1": float(top1), "top5": float(top5)}:
            return f"test set, by the weights of step {step}: top-1 {top1:.2f} %, top-5 {top5:.2f} %"
        case {"event": "weights_given", "path": path, "left_at_random": left_out}:
            return f"starts from the weights of {path}" + (f", but for {', '.join(left_out)}" if left_out else "")
        case {"event": "checkpoint_saved", "checkpoint": checkpoint}:
            return f"checkpoint {checkpoint} saved"
        case {"event": "checkpoint_deleted", "checkpoint": checkpoint}:
            return f"old checkpoint {checkpoint} deleted"
        case {"event": "checkpoint_passed_over", "reason": reason}:
            return f"passed over a damaged checkpoint: {reason}"
        case {"event": "pause_requested", "reason": str(reason)}:
            return f"{reason}; saving a checkpoint"
        case {"event": "stopped" | "paused" as what, "step": step}:
            return f"{what} at step {step}"
        case {"event": "step_refused", "step": step, "loss": loss, "grad_norm": norm, "policy": policy}:
            return f"step {step} was not applied: loss {_number(loss)}, gradient norm {_number(norm)}; policy: {policy}"
        case {"event": "rolled_back", "step": step, "to_step": to_step}:
            return f"went back from step {step} to step {to_step}"
        case {"event": "checkpoint_failed", "step": step, "reason": reason}:
            return f"the checkpoint of step {step} couldn't be saved: {reason}"
        case {"event": "workers_failed", "reason": str(reason)}:
            return reason
        case {"event": "straggler", "rank": rank, "host": host, "phase": phase, "factor": float(factor)}:
            return f"worker {rank} on {host} is slow in {phase}: {min(factor, 999):.2g} times the others' time"
        case {
            "event": "workers_checked",
            "backend": backend,
            "sum_s": float(sum_s),
            "clock_difference_s": float(clocks),
        }:
            return (
                f"workers see the storage and one another: a sum by {backend} takes {1000 * sum_s:.3g} ms, clocks "
                f"differ by {1000 * clocks:.3g} ms"
            )
        case {"event": "clocks_differ", "clock_difference_s": float(clocks)}:
            return f"the clocks of the nodes differ by {clocks:.1f} s: set them by NTP, or living runs will read LOST"
        case {"event": "data_slow"}:
            return "all workers wait for images: more than a quarter of a step"
        case {"event": "network_slow"}:
            return "the network is slow: communication takes twice as long as at best, and holds up all workers"
        case {"event": "network_slow_ended"}:
            return "the network is as fast as before"
        case {"event": "data_slow_ended"}:
            return "workers no longer wait for images"
        case {"event": "straggler_ended", "rank": rank, "host": host, "phase": phase}:
            return f"worker {rank} on {host} is no longer slow in {phase}"
    return None


def _count(number: object, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _number(value: object) -> str:
    """A figure that was logged as text, since JSON has no NaN."""
    try:
        return f"{float(str(value)):.4g}"
    except ValueError:
        return str(value)


def _plainly(kind: str, event: dict[str, Any]) -> str:
    """An event that has no sentence here: its name, and what it says."""
    details = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("event", "time"))
    return " ".join([kind.replace("_", " "), details]).strip()
