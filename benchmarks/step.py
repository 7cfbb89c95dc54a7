"""A training step of our DenseNets, fused, against timm's and torchvision's: images/s, peak memory, error.

    python benchmarks/step.py [--json] [--models densenet121 densenet169] [--batch 8] [--precision fp32 bf16]
                              [--peers timm_eager …] [--repeats 2] [--steps 3] [--no-error]

Needs torch, timm and torchvision, on CPUs or a GPU; no Ray, no DALI. Every measurement is a process of its own, and
rounds are interleaved. A step is forward pass, loss and backward pass; on a GPU ours is recorded as a CUDA graph and
replayed. Peers run contiguous and in channels_last, with cudnn.benchmark on, and count by the faster of the two. Peak
memory is what a step adds to a process that has model and images (on a GPU: what the allocator gave out). The error is
that of all gradients together, against the reference in float64 on the same weights and images, relative to their norm.

On a CPU the peer is timm unless --peers says otherwise: torchvision computes the same operations, and compiled peers
take minutes of compiling each.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from common import Ratio, document, print_document, ratio_of_costs, ratio_of_rates
from torch import Tensor, nn

OURS = {"cpu": "dnctl_fused", "cuda": "dnctl_cudagraphs"}
"""As a recipe runs it by itself."""
EAGER = ("timm_eager", "torchvision_eager")
COMPILED = ("timm_compile", "torchvision_compile")
GRAPHS = ("timm_cudagraphs", "torchvision_cudagraphs")
AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NUM_CLASSES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One process's work."""

    who: str
    model: str
    batch: int
    precision: str
    image_size: int
    channels_last: bool
    device: str
    warm_up_steps: int
    """After the first one."""
    steps: int
    exact: str | None
    """A file of weights and exact gradients to compare with."""


def build(who: str, model: str) -> nn.Module:
    """Imports only what it needs: memory counts."""
    source, _, how = who.partition("_")
    if source == "dnctl":
        from orchestrator.models import create_model

        return create_model(model, block="reference" if how == "reference" else "fused")
    if source == "timm":
        import timm

        return timm.create_model(model, num_classes=NUM_CLASSES)
    import torchvision

    return torchvision.models.get_model(model, num_classes=NUM_CLASSES)


def batch_of(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, case.image_size, case.image_size, generator=generator)
    return images, torch.randint(NUM_CLASSES, (case.batch,), generator=generator)


def step_of(case: Case, model: nn.Module) -> Callable[[Tensor, Tensor], None]:
    """Forward pass, loss, backward pass."""
    source, _, how = case.who.partition("_")
    dtype = AUTOCAST[case.precision]
    run = model
    if source != "dnctl" and how in ("compile", "cudagraphs"):
        run = torch.compile(model, mode="reduce-overhead" if how == "cudagraphs" else None)
    scale = 2.0**10 if case.precision == "fp16" else 1.0

    def step(images: Tensor, labels: Tensor) -> None:
        model.zero_grad(set_to_none=True)
        with torch.autocast(case.device, dtype=dtype, enabled=dtype is not None):
            logits = run(images)
        (F.cross_entropy(logits.float(), labels) * scale).backward()

    return recorded(step) if source == "dnctl" and how == "cudagraphs" else step


def recorded(step: Callable[[Tensor, Tensor], None]) -> Callable[[Tensor, Tensor], None]:
    """A step on a GPU that is replayed from the third time on, always with the images of the first."""
    from orchestrator.train.graph import CaptureOnGpu, Recorded

    device = torch.device("cuda", torch.cuda.current_device())
    inputs: list[Tensor] = []
    work = Recorded("the step", lambda: step(*inputs), CaptureOnGpu(device), device=device)

    def replayed(images: Tensor, labels: Tensor) -> None:
        inputs[:] = images, labels
        work()
        if work.failure is not None:
            raise RuntimeError(f"the step can't be recorded: {work.failure}")

    return replayed


def measure(case: Case) -> dict[str, Any]:
    """Run a case here: seconds of each step, and what else was asked for."""
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    model = build(case.who, case.model)
    images, labels = batch_of(case)
    exact = torch.load(case.exact, weights_only=True) if case.exact else None
    if exact:
        model.load_state_dict(exact["weights"])
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    model = model.to(case.device, memory_format=layout).train()
    images, labels = images.to(case.device, memory_format=layout), labels.to(case.device)
    step = step_of(case, model)
    before = held_bytes(case.device)
    started_at = perf_counter()
    step(images, labels)
    wait(case.device)
    first_step_s = perf_counter() - started_at
    error = gradient_error(model, exact, case) if exact else None
    del exact
    for _ in range(case.warm_up_steps):
        step(images, labels)
    seconds = []
    for _ in range(case.steps):
        wait(case.device)
        started_at = perf_counter()
        step(images, labels)
        wait(case.device)
        seconds.append(perf_counter() - started_at)
    peak = peak_bytes(case.device) - before
    return {"seconds": seconds, "first_step_s": first_step_s, "peak_memory_bytes": peak, "error": error}


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def held_bytes(device: str) -> int:
    """What this process holds now; `peak_bytes` counts from here on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM; getrusage would tell the parent's peak
    return _status_bytes("VmRSS")


def peak_bytes(device: str) -> int:
    """The most that this process has held since."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def gradient_error(model: nn.Module, exact: dict[str, Any], case: Case) -> float:
    scale = 2.0**10 if case.precision == "fp16" else 1.0
    difference = norm = 0.0
    for name, parameter in model.named_parameters():
        gradient = exact["gradients"][name].double()
        difference += float((parameter.grad.cpu().double() / scale - gradient).square().sum())
        norm += float(gradient.square().sum())
    return (difference / norm) ** 0.5


def write_exact(case: Case, path: Path) -> None:
    """The reference's weights, and its gradients in float64."""
    from orchestrator.models import create_model

    model = create_model(case.model, seed=0)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model = model.double().to(case.device)
    images, labels = batch_of(case)
    F.cross_entropy(model(images.double().to(case.device)), labels.to(case.device)).backward()
    gradients = {name: parameter.grad.cpu() for name, parameter in model.named_parameters()}
    torch.save({"weights": weights, "gradients": gradients}, path)


def in_a_process(case: Case) -> dict[str, Any]:
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def first_case(arguments: argparse.Namespace, model: str, batch: int, precision: str) -> Case:
    """Our own, without a comparison with float64."""
    return Case(
        who=OURS[arguments.device],
        model=model,
        batch=batch,
        precision=precision,
        image_size=arguments.image_size,
        channels_last=True,
        device=arguments.device,
        warm_up_steps=3 if arguments.device == "cuda" else 0,
        steps=arguments.steps,
        exact=None,
    )


def compare(arguments: argparse.Namespace, model: str, batch: int) -> Iterator[tuple[str, Any]]:
    """("row", …) of every program, precision and layout, ("ratio", …) of every peer."""
    first = first_case(arguments, model, batch, "fp32")
    with tempfile.TemporaryDirectory(prefix="step") as folder:
        exact = Path(folder) / "exact.pt"
        if not arguments.no_error:
            write_exact(first, exact)
            first = replace(first, exact=str(exact))
        for precision in arguments.precision:
            yield from compare_in(arguments, replace(first, precision=precision))


def compare_in(arguments: argparse.Namespace, first: Case) -> Iterator[tuple[str, Any]]:
    """The same for one precision. A peer's slower layout is measured in the first round only."""
    found: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    of_peers = (True,) if arguments.channels_last else (True, False)
    layouts = {first.who: (True,), **dict.fromkeys(arguments.peers, of_peers)}
    for repeat in range(arguments.repeats):
        for who, of_it in layouts.items():
            for channels_last in of_it:
                exact = first.exact if repeat == 0 else None
                case = replace(first, who=who, channels_last=channels_last, exact=exact)
                found.setdefault((who, channels_last), []).append(in_a_process(case))
        done = {key: rounds for key, rounds in found.items() if not any("failed" in each for each in rounds)}
        for who in arguments.peers:
            of_it = tuple(channels_last for name, channels_last in done if name == who)
            layouts[who] = tuple(sorted(of_it, key=lambda layout: fastest(done[who, layout]))[:1])
    for (who, channels_last), rounds in found.items():
        yield "row", row(first, who, channels_last, rounds)
    for who in arguments.peers:
        if (first.who, True) in done and layouts[who]:
            key = f"{first.model}/{first.precision}/{who}"
            yield from ratios(key, first.batch, arguments, done[first.who, True], done[who, layouts[who][0]])


def fastest(rounds: list[dict[str, Any]]) -> float:
    return min(min(each["seconds"]) for each in rounds)


def ratios(
    key: str, batch: int, arguments: argparse.Namespace, ours: list[dict[str, Any]], peer: list[dict[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """Speed under the plain key; memory, and other batches than the first, under longer ones."""
    if batch != arguments.batch[0]:
        key += f"/batch{batch}"
    rates = [[1 / min(each["seconds"]) for each in rounds] for rounds in (ours, peer)]
    yield "ratio", (key, ratio_of_rates(*rates))
    # The first process of each also holds the exact gradients.
    peaks = [[each["peak_memory_bytes"] for each in rounds[-1:]] for rounds in (ours, peer)]
    yield "ratio", (f"{key}/memory", ratio_of_costs(*peaks))


def row(case: Case, who: str, channels_last: bool, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"model": case.model, "batch": case.batch, "precision": case.precision}
    about |= {"of": who, "channels_last": channels_last}
    failed = [each["failed"] for each in rounds if "failed" in each]
    if failed:
        return {**about, "failed": failed[0]}
    return {
        **about,
        "images_per_s": round(case.batch / fastest(rounds), 2),
        "images_per_s_median": round(case.batch / median(s for each in rounds for s in each["seconds"]), 2),
        "first_step_s": round(rounds[0]["first_step_s"], 2),
        "peak_memory_mb": round(rounds[-1]["peak_memory_bytes"] / 1e6),
        "error": rounds[0]["error"],
    }


def profile_ours(arguments: argparse.Namespace) -> None:
    """Print what the parts of our step take, the longest first."""
    for model_name, batch, precision in product(arguments.models, arguments.batch, arguments.precision):
        case = first_case(arguments, model_name, batch, precision)
        model = build(case.who, model_name).to(case.device, memory_format=torch.channels_last).train()
        images, labels = batch_of(case)
        images, labels = images.to(case.device, memory_format=torch.channels_last), labels.to(case.device)
        step = step_of(case, model)
        for _ in range(4):
            step(images, labels)
        with torch.profiler.profile() as profiler:
            step(images, labels)
            wait(case.device)
        print(f"{model_name}, batch {batch}, {precision}")
        by = f"self_{case.device}_time_total"
        print(profiler.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=80))


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--models", nargs="+", default=["densenet121", "densenet169"])
    parser.add_argument("--batch", nargs="+", type=int, default=[64, 256] if on_gpu else [8])
    parser.add_argument("--precision", nargs="+", choices=AUTOCAST, default=list(AUTOCAST)[: 3 if on_gpu else 2])
    parser.add_argument("--peers", nargs="+", default=[*EAGER, *COMPILED, *GRAPHS] if on_gpu else ["timm_eager"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if on_gpu else "cpu")
    parser.add_argument("--repeats", type=int, default=2, help="interleaved rounds")
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a round")
    parser.add_argument("--channels-last", action="store_true", help="don't try whether peers are faster contiguous")
    parser.add_argument("--no-error", action="store_true", help="leave out the comparison with float64")
    parser.add_argument("--profile", action="store_true", help="show where our step goes instead, by torch's profiler")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    if arguments.profile:
        profile_ours(arguments)
        return
    unknown = set(arguments.peers) - {*EAGER, *COMPILED, *GRAPHS, "dnctl_reference", "dnctl_fused"}
    if unknown:
        parser.error(f"--peers: no {', '.join(sorted(unknown))}; there are {', '.join((*EAGER, *COMPILED, *GRAPHS))}")
    found = [
        found for model in arguments.models for batch in arguments.batch for found in compare(arguments, model, batch)
    ]
    rows = [each for kind, each in found if kind == "row"]
    measured: dict[str, Ratio] = dict(each for kind, each in found if kind == "ratio")
    print_document(document(rows=rows, ratios=measured), as_json=arguments.json)


if __name__ == "__main__":
    main()
