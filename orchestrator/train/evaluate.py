"""Top-1 and top-5 accuracy over a whole validation set, each image counted once at any world size."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orchestrator.data.batch import Batch
from orchestrator.train.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Counts over a validation set, and its mean cross entropy."""

    num_images: int
    correct1: int
    correct5: int
    loss: float

    @property
    def top1(self) -> float:
        """Images whose class came out first, in percent."""
        return 100 * self.correct1 / self.num_images

    @property
    def top5(self) -> float:
        """Images whose class came out among the first five, in percent."""
        return 100 * self.correct5 / self.num_images

    def to_json(self) -> dict[str, float | int]:
        """Counts and what they come to, for events and `--json`."""
        return {
            "num_images": self.num_images,
            "correct1": self.correct1,
            "correct5": self.correct5,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
        }


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    normalize: Callable[[Tensor], Tensor],
    autocast_dtype: torch.dtype | None,
    world: World,
    on_batch: Callable[[int], None] = lambda num_images: None,
) -> Accuracy:
    """Evaluate a model on this rank's batches and add up the counts of all ranks.

    The counts are integers and are added as such: no averages of averages. The outputs of an image's views are summed
    before the softmax; the loss is that of their mean. on_batch: told how many images are done.
    """
    counts = torch.zeros(3, dtype=torch.int64, device=world.device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=world.device)
    num_seen = 0
    with _evaluating(model):
        for batch in batches:
            with torch.autocast(world.device.type, dtype=autocast_dtype, enabled=autocast_dtype is not None):
                logits = model(normalize(batch.images))
            views = logits.float().unflatten(0, (len(batch.labels), len(batch.images) // max(1, len(batch.labels))))
            sums = views.sum(1)
            loss_sum += F.cross_entropy(sums / views.shape[1], batch.labels, reduction="sum")
            hits = sums.topk(min(5, sums.shape[1]), dim=1).indices == batch.labels[:, None]
            num_images = torch.tensor(len(batch.labels), device=world.device)
            counts += torch.stack([num_images, hits[:, 0].sum(), hits.sum()])
            num_seen += len(batch.labels)
            on_batch(num_seen)
    world.all_reduce_sum(counts)
    world.all_reduce_sum(loss_sum)
    num_images, correct1, correct5 = counts.tolist()
    return Accuracy(
        num_images=num_images, correct1=correct1, correct5=correct5, loss=loss_sum.item() / max(num_images, 1)
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
