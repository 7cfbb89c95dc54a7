"""Where does the time of an image go? Processor time of decoding parts of it, and of the resize that follows.

    python benchmarks/decode.py [--json] [--repeats 5]

The images are those of input.py, of 500x375 pixels. Each row is milliseconds of one core an image: DALI's decoder on
the whole image and on parts, which shows what can be left out (rows below a part, most of the work on rows above and
beside it) and what can't (the entropy coding of everything above, which has no entry points); the crops that training
draws, and torch's resize of them to 224 pixels. The peer is PIL, which decodes whole images, and its resize.
"""

import argparse
import io
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from common import document, print_document, ratio_of_costs
from input import JPEG_QUALITY, photograph
from PIL import Image

from orchestrator.data.dali import build_pipeline
from orchestrator.data.draws import crop_boxes
from orchestrator.data.resize import resize
from orchestrator.data.transforms import EvalTransform

NUM_IMAGES, WIDTH, HEIGHT, SIDE = 64, 500, 375, 224
PARTS = {
    "whole": (0, 0, WIDTH, HEIGHT),
    "top half": (0, 0, WIDTH, HEIGHT // 2),
    "bottom half": (0, HEIGHT // 2, WIDTH, HEIGHT - HEIGHT // 2),
    "left half": (0, 0, WIDTH // 2, HEIGHT),
    "first pixel": (0, 0, 1, 1),
    "last pixel": (WIDTH - 1, HEIGHT - 1, 1, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    encoded = photographs()
    work = works(encoded)
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(arguments.repeats + 1):
        for name, run in work.items():
            start = time.process_time()
            run()
            if number:  # the first round warms up
                times[name].append(1e3 * (time.process_time() - start) / NUM_IMAGES)
    rows = [{"work": name, "ms": median(t), "lowest": min(t), "highest": max(t)} for name, t in times.items()]
    ratios = {
        "whole/pil": ratio_of_costs(times["decode whole"], times["PIL decodes whole"]),
        "crop/pil": ratio_of_costs(times["decode a crop"], times["PIL decodes whole"]),
        "resize/pil": ratio_of_costs(times["resize a crop"], times["PIL resizes a crop"]),
    }
    print_document(document(rows=rows, ratios=ratios), as_json=arguments.json)


def photographs() -> list[bytes]:
    """The images, encoded."""
    generator, encoded = np.random.default_rng(0), []
    for _ in range(NUM_IMAGES):
        file = io.BytesIO()
        photograph(generator, WIDTH, HEIGHT).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        encoded.append(file.getvalue())
    return encoded


def works(encoded: list[bytes]) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each does its work on all images."""
    transform = EvalTransform(resize=SIDE, crop=SIDE, interpolation="bilinear")
    pipeline = build_pipeline(transform, NUM_IMAGES, 1, gpu=None, reads_files=False)
    images = [np.frombuffer(data, np.uint8) for data in encoded]
    whole = [np.asarray(Image.open(io.BytesIO(data))) for data in encoded]
    crops = crop_boxes(
        variant="torchvision",
        seed=0,
        epoch=0,
        indices=np.arange(NUM_IMAGES),
        widths=np.full(NUM_IMAGES, WIDTH),
        heights=np.full(NUM_IMAGES, HEIGHT),
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
    )
    cut = [np.ascontiguousarray(p[y : y + h, x : x + w]) for p, (x, y, w, h) in zip(whole, crops.tolist(), strict=True)]
    pictures = [Image.fromarray(pixels) for pixels in cut]

    def decode(boxes: np.ndarray) -> Callable[[], object]:
        def run() -> None:
            pipeline.feed_input("image", images)
            pipeline.feed_input("box_origin", boxes[:, :2].astype(np.int32))
            pipeline.feed_input("box_size", boxes[:, 2:].astype(np.int32))
            pipeline.schedule_run()
            pipeline.outputs()

        return run

    return {
        **{f"decode {name}": decode(np.tile(box, (NUM_IMAGES, 1))) for name, box in PARTS.items()},
        "decode a crop": decode(crops),
        "resize a crop": lambda: [resize(torch.from_numpy(pixels), SIDE, SIDE, "bilinear") for pixels in cut],
        "PIL decodes whole": lambda: [Image.open(io.BytesIO(data)).convert("RGB") for data in encoded],
        "PIL resizes a crop": lambda: [picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR) for picture in pictures],
    }


if __name__ == "__main__":
    main()
