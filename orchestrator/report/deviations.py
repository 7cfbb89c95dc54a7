"""How a run's settings differ from the paper's, in sentences. Every field of the numerics has its say here.

A field is said by a rule, follows from fields that are, or doesn't change what the paper describes; a test sees to it
that there is no fourth kind.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from orchestrator.plan.plan import Deviation, Numerics, TrainTransformPlan

FOLLOWS: Final = frozenset(
    {
        "steps_per_epoch",  # batch size and number of images
        "last_batch_size",
        "num_steps",
        "num_train_images",  # images held out
        "num_val_images",
        "num_test_images",
    }
)
NO_MATTER: Final = frozenset(
    {
        "seed",
        "data_fingerprint",  # the data was recognised by its size
        "num_classes",
        "loader",  # all evaluate the same function; differences of a 255th
        "decoder",
        "channels_last",  # rounding
        "model.block",
        "deterministic",
        "guard_policy",  # what it did is said apart
        "guard_spike",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A thing that can differ.

    fields: of the numerics, those that it speaks for.
    value: what is compared.
    say: the sentence, of (the run's value, the paper's).
    """

    fields: tuple[str, ...]
    value: Callable[[Numerics], Any]
    say: Callable[[Any, Any], str]


def _share(steps: int, num_steps: int) -> str:
    return f"{100 * steps / num_steps:.4g} %"


def _milestones(numerics: Numerics) -> tuple[str, ...]:
    """Where the rate falls, as shares of the run to a tenth of a percent: no step's rounding is a difference."""
    return tuple(f"{100 * step / numerics.num_steps:.1f}".removesuffix(".0") for step in numerics.milestones_steps)


def _say_milestones(run: tuple[str, ...], paper: tuple[str, ...]) -> str:
    theirs = _listed([f"{share} %" for share in paper])
    if not run:
        return f"The learning rate never falls; in the paper it falls at {theirs} of the run."
    return f"The learning rate falls at {_listed([f'{share} %' for share in run])} of the run instead of at {theirs}."


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _group_size(numerics: Numerics) -> float:
    return numerics.global_batch_size / numerics.batch_norm_groups


def _warmup(numerics: Numerics) -> str | None:
    return _share(numerics.warmup_steps, numerics.num_steps) if numerics.warmup_steps else None


def _augmentation(transform: TrainTransformPlan) -> str:
    """Training images in words."""
    size = f"{transform.image_size} px"
    match transform.crop:
        case "pad" if transform.padding:
            crop = f"random {size} crops of images padded by {transform.padding} px"
        case "pad":
            crop = f"whole images of {size}"
        case kind:
            lowest, highest = (f"{100 * share:g}" for share in transform.scale)
            narrowest, widest = (f"{ratio:.3g}" for ratio in transform.ratio)
            crop = (
                f"crops of {lowest} to {highest} % of the image, aspect {narrowest} to {widest}, as {kind.capitalize()}"
                f" draws them, {transform.interpolation} to {size}"
            )
    mirror = f", mirrored with probability {transform.mirror:g}" if transform.mirror else ", not mirrored"
    color = transform.color
    colors = "" if color is None else f", colour jitter {color.jitter:g} and lighting noise {color.lighting:g}"
    return crop + mirror + colors


def _evaluation(numerics: Numerics) -> str:
    transform = numerics.eval_transform
    resized = (
        "" if transform.resize is None else f" of images resized to {transform.resize} px ({transform.interpolation})"
    )
    crops = "the central" if transform.crops == 1 else "ten crops of"
    return f"{crops} {transform.crop} px{resized}"


def _normalisation(numerics: Numerics) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in (*numerics.mean, *numerics.std))


def _network(numerics: Numerics) -> Any:
    model = numerics.model
    return model.name, model.architecture, model.options


def _say_network(run: Any, paper: Any) -> str:
    (name, architecture, options), (_, known, _) = run, paper
    if architecture is None or known is None:
        given = ", ".join(f"{key} {value}" for key, value in options)
        return f"The network is {name} with other options than the paper's: {given}."
    changed = [
        f"{field.replace('_', ' ')} {getattr(architecture, field)} instead of {getattr(known, field)}"
        for field in type(architecture).__slots__
        if getattr(architecture, field) != getattr(known, field, None)
    ]
    return f"The network isn't the {name} of the paper: {_listed(changed)}."


def _say_epochs(run: int, paper: int) -> str:
    return f"It is planned for {run:,} epochs instead of {paper:,}, {100 * run / paper:.3g} % of the paper's training."


def _momentum(is_nesterovs: bool) -> str:
    return "Nesterov's" if is_nesterovs else "the plain kind"


def _say_clip(run: float | None, paper: float | None) -> str:
    return (
        f"Gradients are clipped to a norm of {run:g}." if run is not None else f"Gradients aren't clipped to {paper}."
    )


def _instead(field: str, sentence: str) -> Rule:
    """A field that is compared as it is; the sentence has places for {run} and {paper}."""
    return Rule(fields=(field,), value=attrgetter(field), say=lambda run, paper: sentence.format(run=run, paper=paper))


RULES: Final = (
    Rule(fields=("epochs",), value=lambda n: n.epochs, say=_say_epochs),
    _instead("global_batch_size", "Batches are of {run:,} images instead of {paper:,}."),
    Rule(
        fields=("batch_norm_groups",),
        value=_group_size,
        say=lambda run, paper: f"Batch-norm statistics are of {run:g} images instead of {paper:g}.",
    ),
    _instead("optimizer.lr", "The learning rate begins at {run:g} instead of {paper:g}."),
    Rule(fields=("milestones_steps",), value=_milestones, say=_say_milestones),
    _instead("gamma", "The learning rate falls to {run:g} of what it was each time instead of {paper:g}."),
    Rule(
        fields=("warmup_steps",),
        value=_warmup,
        say=lambda run, paper: (
            f"The learning rate rises from near 0 over the first {run} of the run; the paper has no warm-up."
            if run
            else f"The learning rate doesn't warm up over the first {paper} of the run."
        ),
    ),
    _instead("optimizer.momentum", "Momentum is {run:g} instead of {paper:g}."),
    Rule(
        fields=("optimizer.nesterov",),
        value=lambda n: n.optimizer.nesterov,
        say=lambda run, paper: f"Momentum is {_momentum(run)} instead of {_momentum(paper)}.",
    ),
    _instead("optimizer.weight_decay", "Weight decay is {run:g} instead of {paper:g}."),
    Rule(
        fields=("train_transform",),
        value=lambda n: _augmentation(n.train_transform),
        say=lambda run, paper: f"Training images are augmented otherwise: {run}; in the paper: {paper}.",
    ),
    Rule(
        fields=("mean", "std"),
        value=_normalisation,
        say=lambda run, paper: "Images are normalised by another mean or standard deviation than the paper's.",
    ),
    Rule(
        fields=("eval_transform",),
        value=_evaluation,
        say=lambda run, paper: f"It is evaluated on {run} instead of {paper}.",
    ),
    _instead("num_held_out_images", "{run:,} training images are held out instead of {paper:,}, and not trained on."),
    Rule(fields=("model.name", "model.architecture", "model.options"), value=_network, say=_say_network),
    _instead("model.drop_rate", "Dropout is {run:g} instead of {paper:g}."),
    _instead("model.stochastic_depth", "Stochastic depth is {run:g} instead of {paper:g}."),
    Rule(
        fields=("model.init",),
        value=lambda n: n.model.init,
        say=lambda run, paper: f"Initial weights are drawn as {run} draws them instead of as {_whose(paper)}.",
    ),
    Rule(
        fields=("model.weights_sha256",),
        value=lambda n: n.model.weights_sha256,
        say=lambda run, paper: "It started from given weights, and not from random ones.",
    ),
    Rule(
        fields=("label_smoothing",),
        value=lambda n: n.label_smoothing,
        say=lambda run, paper: f"Labels are smoothed by {run:g}; the paper has {paper or 'no smoothing'}.",
    ),
    Rule(fields=("clip_grad_norm",), value=lambda n: n.clip_grad_norm, say=_say_clip),
    _instead("precision", "Activations and gradients are computed in {run} instead of {paper}."),
)


def _whose(init: str) -> str:
    return "the authors do" if init == "authors" else f"{init} does"


def deviations(run: Numerics, paper: Numerics, *, with_network: bool = True) -> Iterator[str]:
    """What a run's settings have that the paper's haven't, a sentence each; nothing if they are the paper's.

    with_network: False if `paper` is of another network, so that only what is around it can be compared.
    """
    for rule in RULES:
        if not with_network and rule.fields[0].startswith("model."):
            continue
        ours, theirs = rule.value(run), rule.value(paper)
        if ours != theirs:
            yield rule.say(ours, theirs)


def recorded(deviation: Deviation, steps_per_epoch: int) -> str:
    """A change of the schedule that was made when the run was resumed."""
    changes = "; ".join(f"{_field(key)} {was} became {now}" for key, was, now in deviation.changes)
    return (
        f"Changed on resume, after {deviation.step / steps_per_epoch:.4g} epochs (step {deviation.step:,}): {changes}."
    )


def _field(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")
