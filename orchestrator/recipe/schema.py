"""The schema of a recipe: each key, its type, its default and what it does.

The text under a field is its description for `dnctl recipe schema`, docs/recipes.md and editors. Every field is used
by the plan, the engine or the loop. Defaults are the paper's settings where it has one; what a result hinges on (the
network, epochs, batch, groups, learning rate) has no default. Instances are frozen.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from orchestrator.recipe.fields import Fraction, PathText, Ratio, Text

AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Interpolation = Literal["bilinear", "bicubic"]


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, text is never taken for a number, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Model(Section):
    """Which network, and how it starts."""

    name: Text = Field(examples=["densenet169"])
    """The network: one of `dnctl model list`, another one of its families, such as `densenetbc40_24`, a family alone
    with `depth` and `growth_rate`, or `timm:NAME` for one of timm's own."""
    depth: AtLeastOne | None = None
    """Layers of a family's network, in place of those in its name; null: as the name says."""
    growth_rate: AtLeastOne | None = None
    """Channels that each layer of a DenseNet family's network adds, in place of those in its name; null: as the name
    says."""
    compression: Fraction | None = None
    """Share of channels that a DenseNet's transitions keep; null: the network's own."""
    options: Mapping[str, bool | int | float | str] = {}
    """Arguments of one of timm's own models, such as `zero_init_last: false`."""
    weights: PathText | None = None
    """What the run starts from: a state_dict as .safetensors or as torch saves it, or a checkpoint's folder; null: from
    random weights. A classifier of another number of classes is left out and starts at random."""
    num_classes: AtLeastOne | None = None
    """Outputs of the classifier; null: as many as the data has."""
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability after each convolution but the first (in wide ResNets: within each unit); the paper uses 0
    where images are augmented."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a ResNet's last unit loses its branch in training; it falls linearly towards 0 at the image.
    Huang et al. use 0.5."""
    init: Literal["authors", "timm"] = "authors"
    """Initial weights: "authors" draws convolutions as the paper's code (fan-out), "timm" as timm (fan-in). timm's own
    models initialise themselves."""
    memory_efficient: bool = False
    """Recompute concatenations and batch norms in the backward pass: less memory, more time, the same result. The fused
    block never keeps them."""
    block: Literal["auto", "reference", "fused"] = "auto"
    """What computes a DenseNet's blocks: "reference", operation by operation; "fused", the same numbers to rounding in
    less memory, by kernels that take a C++ compiler where they run; "auto": fused where there is one and it was
    measured to be faster, which is on CPUs, and for networks of ImageNet's kind in 16 bits on H100 and H200 GPUs."""


class Color(Section):
    """How colours are changed at random; the defaults are the authors'."""

    jitter: float = Field(default=0.4, ge=0, le=1)
    """Brightness, contrast and saturation each change by up to this part, in random order."""
    lighting: NotNegative = 0.1
    """Standard deviation of the noise along the principal components of ImageNet's colours."""


class TrainImages(Section):
    """Augmentation of training images."""

    image_size: AtLeastOne = 224
    """Side of the square that the network sees, in pixels."""
    crop: Literal["torch", "torchvision", "pad"] = "torch"
    """The random crop: its shape drawn as in the authors' Torch code, or as torchvision's RandomResizedCrop, and
    resized; or "pad", CIFAR's: `image_size` pixels, not resized, out of the image padded by the mean colour."""
    padding: int = Field(default=4, ge=0)
    """Pixels added on each side by `crop: pad`."""
    scale: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest part of the image's area that a resized crop covers."""
    ratio: tuple[Ratio, Ratio] = (3 / 4, 4 / 3)
    """Smallest and largest ratio drawn; its meaning is the crop's: "torch" takes width/height up to its square."""
    interpolation: Interpolation = "bicubic"
    """How a crop is resized."""
    mirror: float = Field(default=0.5, ge=0, le=1)
    """Probability that an image is mirrored left to right."""
    color: Color | None = None
    """How colours are changed at random; null: not at all."""


class EvalImages(Section):
    """What the network sees of a validation image."""

    resize: AtLeastOne | None = 256
    """The short side is resized to this many pixels; null: images stay as large as they are."""
    crop: AtLeastOne = 224
    """Side of the square cut out of the centre, in pixels; smaller images are padded with black."""
    interpolation: Interpolation = "bicubic"
    """How the image is resized."""
    crops: Literal[1, 10] = 1
    """1: the centre; 10: corners and centre of the image and of its mirror image, outputs summed before the softmax."""


class Expected(Section):
    """The size of a data set, as the plan takes it while the data can't be read."""

    train_images: AtLeastOne = Field(examples=[1_281_167])
    """Training images."""
    val_images: AtLeastOne = Field(examples=[50_000])
    """Validation images."""
    classes: AtLeastOne = Field(examples=[1000])
    """Classes."""


class Data(Section):
    """Which images, and what is done to them."""

    root: PathText | None = None
    """Folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE, or shards made of one (`dnctl data shard`), which may
    also lie under s3://BUCKET/… or gs://BUCKET/…; null: to be given with `--set data.root=…`."""
    loader: Literal["auto", "dali", "pytorch"] = "auto"
    """What decodes and augments; "auto": DALI where it is installed, otherwise the PyTorch reference loader."""
    num_threads: AtLeastOne | Literal["auto"] = "auto"
    """Decoding threads of each worker; "auto": as many as it has CPU cores."""
    prefetch: AtLeastOne | Literal["auto"] = "auto"
    """Micro-batches that each worker prepares ahead; "auto": 2, or 4 from an object store."""
    decoder: Literal["auto", "cpu", "mixed"] = "auto"
    """Where DALI decodes and resizes: "cpu", or "mixed" for the GPU with the CPU's help; "auto": mixed where workers
    have GPUs."""
    cache_gb: NotNegative = 0.0
    """The most that copies of shards may take on each node's disk, in GB; 0: shards are read where they lie."""
    cache_dir: PathText | None = None
    """Where a node keeps copies of shards; null: ~/.cache/dnctl/shards, or under $XDG_CACHE_HOME."""
    damaged: Literal["refuse", "skip"] = "refuse"
    """What becomes of a data set with damaged images: it is refused, or they are left out."""
    holdout: Annotated[int, Field(ge=0)] = 0
    """Training images set aside, drawn by the seed, to validate on during the run; then val/ is a test set, evaluated
    once, at the end. 0: none, and val/ is validated on."""
    train: TrainImages = TrainImages()
    """Augmentation of training images."""
    eval: EvalImages = EvalImages()
    """What the network sees of a validation image."""
    mean: tuple[NotNegative, NotNegative, NotNegative] = (0.485, 0.456, 0.406)
    """Subtracted from values in [0, 1]: red, green, blue. The default is ImageNet's."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Divided by, after the mean is subtracted: red, green, blue. The default is ImageNet's."""
    expected: Expected | None = None
    """The size of the data set, for plans made where the data can't be read; said where the data differs."""


class Optimizer(Section):
    """SGD without dampening."""

    lr: float = Field(gt=0, examples=[0.1])
    """Learning rate before any milestone."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum."""
    nesterov: bool = True
    """Nesterov momentum, as the paper."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2 penalty on every parameter, batch norm's included."""


class Schedule(Section):
    """How the learning rate changes."""

    milestones: tuple[AtLeastOne, ...] | tuple[Fraction, ...] = ()
    """When the rate is multiplied by `gamma`: epochs, or fractions of the run such as 1/3, which move with it."""
    gamma: float = Field(default=0.1, gt=0, le=1)
    """What the rate is multiplied by at each milestone."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs, or a part of one, over which the rate rises linearly to its full value."""


class Train(Section):
    """How the network is trained."""

    epochs: int = Field(ge=1, le=100_000, examples=[90])
    """Passes over the training images."""
    global_batch_size: AtLeastOne = Field(examples=[256])
    """Images of one optimiser step, over all workers, whatever their number."""
    batch_norm_groups: AtLeastOne = Field(examples=[4])
    """Groups of a batch that are normalised each by its own statistics; the paper's 4 GPUs were 4 groups of 64."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward and backward pass; weights and updates are always fp32."""
    channels_last: bool = False
    """Keep images as NHWC in memory: faster on GPUs with bf16 or fp16, and for reference blocks on CPUs."""
    deterministic: bool = True
    """Use deterministic algorithms alone, so that a resumed run is bitwise the undisturbed one."""
    cuda_graphs: Literal["auto", "off"] = "auto"
    """Whether a GPU's steps are recorded once and replayed, with one launch in place of thousands and the same result;
    "auto": where workers have GPUs and share no batch-norm group."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each label that is spread over all classes; the paper uses none."""
    clip_grad_norm: Positive | None = None
    """Gradients are scaled down to this norm where it is larger; null: never, as the paper."""
    optimizer: Optimizer
    """SGD without dampening."""
    schedule: Schedule = Schedule()
    """How the learning rate changes."""
    log_every_steps: AtLeastOne = 10
    """Steps from one record of loss and speed to the next."""


class Eval(Section):
    """When and how the network is evaluated."""

    every_epochs: AtLeastOne = 1
    """Epochs from one evaluation to the next; the end of the run is always evaluated."""
    batch_size: AtLeastOne = 256
    """Images of each worker at a time."""
    test: Literal["last", "best"] = "last"
    """With `data.holdout`: which weights the test set is shown, those of the last step or of the best validation."""


class Guard(Section):
    """What happens when training diverges: a step whose loss or gradient isn't finite, or far above the recent ones."""

    policy: Literal["rollback", "skip", "stop"] = "rollback"
    """"rollback": go back to the newest checkpoint and leave out the steps from there to the bad one; "skip": leave out
    the bad step alone; "stop": the run fails with exit code 5. A step that is bad never changes the weights."""
    spike: Positive | None = 30.0
    """Robust standard deviations above the median of the last 128 steps from which on a loss or a gradient's norm is
    bad, if the network does worse than guessing; null: only one that isn't finite."""
    max_tries: int = Field(default=3, ge=0)
    """How many bad steps of one epoch are put up with before the run fails."""


class Checkpoint(Section):
    """When the run is saved, and what is kept."""

    every_epochs: AtLeastOne = 1
    """Epochs from one checkpoint to the next; the end of the run is always saved."""
    every_minutes: Positive | Literal["auto"] | None = "auto"
    """Minutes from one checkpoint to the next within an epoch; "auto": what loses least time, from the measured cost of
    a checkpoint and the time between failures; null: none within an epoch."""
    mtbf_hours: Positive = 24.0
    """Hours between failures that are expected before the run has seen any; its own failures then count, too."""
    on_failure: Literal["continue", "stop"] = "continue"
    """What happens when a checkpoint can't be written, to a full disk for instance: the run goes on and tries again, or
    it fails. Its end always needs one."""
    keep_last: AtLeastOne = 3
    """How many of the newest checkpoints are kept."""
    keep_best: int = Field(default=1, ge=0)
    """How many of the best checkpoints, by validation top-1, are kept besides."""


WorkerCount = Annotated[int, Field(ge=1, le=65_536)]


class Workers(Section):
    """How many workers a run may have while it lives."""

    min: WorkerCount
    """With fewer the run waits."""
    max: WorkerCount
    """It never takes more."""


class Cluster(Section):
    """What the run takes of a cluster."""

    workers: WorkerCount | Workers | Literal["auto"] = "auto"
    """Processes that train: a number, or {min: 1, max: 8} for as many as there is room for at any time; "auto": one a
    GPU, or one a CPU core, at most one a batch-norm group."""
    gpus_per_worker: Literal[0, 1, "auto"] = "auto"
    """GPUs of each worker; "auto": 1 where the cluster has any."""
    cpus_per_worker: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """CPU cores reserved for each worker, 0 to reserve none; "auto": as many as all workers find on nodes.
    Without GPUs a worker computes with as many threads; "auto" doesn't let the number of workers change theirs."""
    split_groups: bool = False
    """Whether workers beyond the number of batch-norm groups share a group, with its statistics synchronised in every
    layer; the result then agrees to rounding only. Otherwise they have nothing to compute, and the plan says so."""
    max_failures: int = Field(default=3, ge=0)
    """How often the workers are started again without a new checkpoint in between before the run has FAILED."""
    resize_minutes: NotNegative = 1.0
    """Least minutes from one change of the number of workers to the next, where it may change."""
    hang_minutes: Positive = 10.0
    """Minutes without a step after which a worker counts as hung and is ended, to be started again."""
    price_per_worker_hour: Positive | None = None
    """What a worker, with its GPU, costs an hour, in any currency: what the plan's money and `limits.money` rest on."""


class Limits(Section):
    """What the run may take, over all of its attempts. Where it reaches a limit, it is STOPPED, with a checkpoint."""

    hours: Positive | None = None
    """Hours during which it has workers; null: any number."""
    money: Positive | None = None
    """What its workers may cost, in the currency of `cluster.price_per_worker_hour`; null: any sum."""


class Recipe(Section):
    """What a person wants trained. Made by `load_recipe`."""

    name: Text | None = None
    """What runs are called after; null: the file's name."""
    seed: int = Field(default=0, ge=0, lt=2**64)
    """Seed of the initial weights, the order of images, their augmentation and dropout."""
    model: Model
    """Which network, and how it starts."""
    data: Data = Data()
    """Which images, and what is done to them."""
    train: Train
    """How the network is trained."""
    guard: Guard = Guard()
    """What happens when training diverges."""
    eval: Eval = Eval()
    """When and how the network is evaluated."""
    checkpoint: Checkpoint = Checkpoint()
    """When the run is saved, and what is kept."""
    cluster: Cluster = Cluster()
    """What the run takes of a cluster."""
    limits: Limits = Limits()
    """What the run may take, over all of its attempts."""

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    def where(self, key: str) -> str:
        """The dotted key behind the place where it was written, such as 'recipes/x.yaml:12: train.epochs'."""
        origin = self._origins.get(key)
        return f"{origin}: {key}" if origin else key

    def with_origins(self, origins: Mapping[str, str]) -> "Recipe":
        """The same recipe, which knows where each dotted key was written."""
        located = self.model_copy()
        located._origins = origins
        return located

    def __eq__(self, other: object) -> bool:
        """Whether both ask for the same, wherever it was written."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()
