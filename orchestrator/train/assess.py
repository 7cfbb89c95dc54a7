"""Evaluation outside of a run: given weights, given images, one process."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from orchestrator.data.loader import LoaderKind, available_loader, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.errors import DataError
from orchestrator.models import create_model
from orchestrator.plan.plan import EvalTransformPlan, Numerics, Precision
from orchestrator.run.weights_file import read_weights_file
from orchestrator.train.checkpoint import load_model, read_state
from orchestrator.train.evaluate import Accuracy, evaluate
from orchestrator.train.images import Normalize
from orchestrator.train.requests import evaluation_requests
from orchestrator.train.step import AUTOCAST_DTYPE
from orchestrator.train.transforms import eval_transform
from orchestrator.train.weights import load_weights, state_dict_of
from orchestrator.train.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How images are shown to a network."""

    transform: EvalTransformPlan
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    loader: LoaderKind
    precision: Precision
    batch_size: int
    """Views of images at a time: ten crops of an image count as ten."""
    num_threads: int


def protocol_of(
    numerics: Numerics,
    *,
    crops: Literal[1, 10] | None,
    loader: LoaderKind | None,
    batch_size: int,
    num_threads: int,
) -> Protocol:
    """How a run showed its validation images. crops and loader: None for the run's own."""
    transform = numerics.eval_transform
    own_loader = numerics.loader if numerics.loader == "pytorch" else available_loader()
    return Protocol(
        transform=transform if crops is None else replace(transform, crops=crops),
        mean=numerics.mean,
        std=numerics.std,
        loader=loader or own_loader,
        precision=numerics.precision,
        batch_size=batch_size,
        num_threads=num_threads,
    )


def assess(
    model: nn.Module,
    images: Manifest,
    protocol: Protocol,
    *,
    world: World | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Accuracy:
    """Top-1 and top-5 of a model over all images, each of them on one of the ranks.

    world: None for this process alone, on a GPU if there is one. on_batch: told how many are done here.
    """
    world = world or World.single("cuda" if torch.cuda.is_available() else "cpu")
    batch_size = max(1, protocol.batch_size // protocol.transform.crops)
    normalize = Normalize(mean=protocol.mean, std=protocol.std, device=world.device, channels_last=False)
    loader = open_loader(
        protocol.loader,
        images,
        eval_transform(protocol.transform),
        seed=0,
        requests=evaluation_requests(np.arange(images.num_samples), world, batch_size=batch_size),
        max_batch_size=batch_size,
        device=world.device_type,
        device_index=world.device.index or 0,
        num_threads=protocol.num_threads,
        decoder="mixed" if world.device_type == "cuda" else "cpu",
    )
    with loader:
        return evaluate(
            model.to(world.device),
            loader,
            normalize=normalize,
            autocast_dtype=AUTOCAST_DTYPE[protocol.precision],
            world=world,
            on_batch=on_batch,
        )


def model_of_checkpoint(numerics: Numerics, contents: dict[str, bytes], *, source: str) -> tuple[nn.Module, int]:
    """The network of a run's checkpoint, and the steps it was trained for. Raises CheckpointError."""
    model = create_model(**numerics.model.arguments, num_classes=numerics.num_classes, seed=0)
    load_model(contents, model, source=source)
    return model, read_state(contents, source=source).step


def model_with_weights(name: str, *, num_classes: int, weights: Path | None, seed: int) -> nn.Module:
    """A network by name, with the weights of a file or a checkpoint, or with random ones if there are none.

    weights: a state_dict of ours, timm's or torchvision's, as .safetensors or as torch saves it; read without executing
    code. Raises NotFoundError or CheckpointError.
    """
    model = create_model(name, num_classes=num_classes, seed=seed)
    if weights is not None:
        advice = f"{name} was made with {num_classes} classes, as the data has: give the model and the data set that "
        tensors = state_dict_of(read_weights_file(weights))
        load_weights(model, tensors, source=str(weights), advice=advice + "the weights were trained with")
    return model


def check_classes(images: Manifest, num_classes: int, *, source: str) -> None:
    """Raise DataError if a network has fewer outputs than the data has classes."""
    if len(images.classes) > num_classes:
        raise DataError(
            f"{images.root} has {len(images.classes)} classes, {source} tells {num_classes} apart; "
            "give the data set it was trained on with --data"
        )
