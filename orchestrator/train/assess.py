"""Evaluation outside of a run: given weights, given images, one process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from orchestrator.data.loader import LoaderKind, open_loader
from orchestrator.data.manifest import Manifest
from orchestrator.errors import CheckpointError, DataError, NotFoundError
from orchestrator.models import create_model
from orchestrator.plan.plan import EvalTransformPlan, Numerics, Precision
from orchestrator.train.checkpoint import load_model, read_state
from orchestrator.train.evaluate import Accuracy, evaluate
from orchestrator.train.images import Normalize
from orchestrator.train.requests import evaluation_requests
from orchestrator.train.step import AUTOCAST_DTYPE
from orchestrator.train.transforms import eval_transform
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
    num_threads: int


def assess(
    model: nn.Module, images: Manifest, protocol: Protocol, *, on_batch: Callable[[int], None] = lambda done: None
) -> Accuracy:
    """Top-1 and top-5 of a model over all images, on a GPU if there is one. on_batch: told how many are done."""
    world = World.single("cuda" if torch.cuda.is_available() else "cpu")
    normalize = Normalize(mean=protocol.mean, std=protocol.std, device=world.device, channels_last=False)
    loader = open_loader(
        protocol.loader,
        images,
        eval_transform(protocol.transform),
        seed=0,
        requests=evaluation_requests(images.num_samples, world, batch_size=protocol.batch_size),
        max_batch_size=protocol.batch_size,
        device=world.device_type,
        num_threads=protocol.num_threads,
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
    model = create_model(numerics.model.name, num_classes=numerics.num_classes, init=numerics.model.init, seed=0)
    load_model(contents, model, source=source)
    return model, read_state(contents, source=source).step


def model_with_weights(name: str, *, num_classes: int, weights: Path | None, seed: int) -> nn.Module:
    """A network by name, with the weights of a file, or with random ones if there is none.

    weights: a state_dict as .safetensors, or as torch saves it; read without executing code. Raises CheckpointError.
    """
    model = create_model(name, num_classes=num_classes, seed=seed)
    if weights is None:
        return model
    try:
        model.load_state_dict(_read_state_dict(weights))
    except RuntimeError as error:
        first_fault = str(error).strip().splitlines()[-1].strip()
        raise CheckpointError(
            f"{weights} doesn't fit {name} with {num_classes} classes: {first_fault}; give the model and the data set "
            "that it was trained with"
        ) from error
    return model


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        document = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}") from None
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} can't be read as weights: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch's unpickler raises its own errors for whatever it doesn't allow
        raise CheckpointError(f"{path} holds more than tensors, so it isn't read; save its state_dict alone") from error
    if isinstance(document, dict) and isinstance(document.get("state_dict"), dict):
        document = document["state_dict"]
    if not isinstance(document, dict) or not all(isinstance(value, Tensor) for value in document.values()):
        raise CheckpointError(f"{path} is no state_dict: a mapping of names to tensors")
    return document


def check_classes(images: Manifest, num_classes: int, *, source: str) -> None:
    """Raise DataError if a network has fewer outputs than the data has classes."""
    if len(images.classes) > num_classes:
        raise DataError(
            f"{images.root} has {len(images.classes)} classes, {source} tells {num_classes} apart; "
            "give the data set it was trained on with --data"
        )
