"""Random histories, one after another: `python -m tests.multihost.chaos SEED [--minutes M] [--history N]`.

A history is a function of the seed and its number. The first that fails ends it, with the command that plays it again.
"""

import argparse
import sys
import tempfile
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic

from tests.multihost.faults import FAULTS
from tests.multihost.history import STRIKES_ON_THE_GO, Stage, Strike, made_stage
from tests.multihost.moments import moments_of
from tests.multihost.record import Outcome, record

WORKERS = ("2", "{min: 1, max: 2}", "{min: 1, max: 3}")


def drawn(seed: str, number: int) -> tuple[str, list[Strike]]:
    """The workers and the strikes of a history."""
    random = Random(f"{seed}/{number}")
    workers = random.choice(WORKERS)
    strikes: list[Strike] = []
    for _ in range(random.randint(2, 5)):
        has_enough_on_the_go = sum(not strike.fault.ends_attempt for strike in strikes) == STRIKES_ON_THE_GO
        faults = [f for f in FAULTS.values() if f.only is None and (f.ends_attempt or not has_enough_on_the_go)]
        fault = random.choice(faults)
        strikes.append(Strike(fault=fault, moment=random.choice(moments_of(fault))))
    return workers, strikes


def play(stage: Stage, seed: str, number: int) -> bool:
    """Play one history and say what came of it; whether it went as promised."""
    workers, strikes = drawn(seed, number)
    again = f"make chaos SEED={seed} HISTORY={number}"
    print(f"history {number}, workers {workers}: {'; '.join(map(str, strikes))}", flush=True)
    try:
        outcomes = stage.play(strikes, seed=f"{seed}/{number}", workers=workers)
    except Exception as error:
        lost = [
            Outcome(fault=strike.fault.name, moment=strike.moment.name, back_by="nothing", back_after_s=None)
            for strike in strikes
        ]
        record(lost, history=again)
        print(f"FAILED: {type(error).__name__}: {error}\nPlay it again: {again}", flush=True)
        return False
    record(outcomes, history=again)
    print(
        f"  ended as the undisturbed run: {', '.join(f'{o.back_by} {o.back_after_s} s' for o in outcomes)}", flush=True
    )
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seed", help="any text")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no history after so long")
    parser.add_argument("--history", type=int, help="play this one alone")
    arguments = parser.parse_args()
    deadline = monotonic() + 60 * arguments.minutes
    numbers = count() if arguments.history is None else [arguments.history]
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mh") as place, made_stage(Path(place)) as stage:
        for number in numbers:
            if monotonic() > deadline:
                return
            if not play(stage, arguments.seed, number):
                sys.exit(1)


if __name__ == "__main__":
    main()
