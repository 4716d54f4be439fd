"""LitServe and BentoML beside Graft, with either decoder: who answers more, and how long the slowest wait.

The machine itself changes by a tenth, at times by a third, from one minute to the next. So a look at every way to share
the cores only chooses the best way of each, and figures come from rounds: in each the bare limit, Graft and every peer
run one after the other, and a ratio is that of one round. The median of the rounds counts.

The processor's time for an answer is told beside, which varies less. As far as both keep all cores busy, its ratio is
that of the throughputs.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, TypeVar

from benchmarks.serving import bare, servers
from benchmarks.serving.parts import CLIENTS, PROCESSES, Bench, Figures, closed, least, most, opened
from benchmarks.serving.servers import Server

W = TypeVar("W")
# Workers and threads of each.
Way = tuple[int, int]

DECODERS = {"pillow": ("its usual", 1.5), "graft": ("our", 1.25)}
# A peer that is nearer to the bare limit than this cannot be beaten by the goal's factor: the ratio is reported.
NEAR = 0.75
ROUNDS = 5
# Of our saturation, when the tails are compared.
SHARE = 0.7


@dataclass(slots=True)
class Rates:
    """Of one server, round by round: answers a second, and milliseconds of one core for each answer."""

    per_second: list[float] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    def look(self, bench: Bench, server: Server) -> None:
        """One round."""
        before = server.processor_seconds()
        seen = closed(server, bench.usual, CLIENTS, bench.seconds)
        num_answers = seen.aside + sum(seen.statuses.values())
        self.per_second.append(seen.document()["answers_per_second"])
        self.milliseconds.append(round(1000 * (server.processor_seconds() - before) / num_answers, 2))

    def document(self) -> Figures:
        """All rounds."""
        return {"answers_per_second": self.per_second, "processor_ms_per_answer": self.milliseconds}


def run(bench: Bench) -> Figures:
    """A look at each peer, the rounds, then tails at 70 % of our saturation."""
    best = {
        (peer, decoder): _best(bench, bare.WAYS, partial(_peer, bench, peer, decoder))
        for peer, decoder in product(bench.pythons, DECODERS)
    }
    processes = _best(bench, PROCESSES, partial(_graft, bench))
    rounds, ours = [], Rates()
    theirs = {key: Rates() for key in best}
    for _ in range(ROUNDS):
        rounds.append(bare.rates(bench.graph, bench.shape, bench.usual, bench.seconds))
        with _graft(bench, processes) as server:
            ours.look(bench, server)
        for (peer, decoder), way in best.items():
            with _peer(bench, peer, decoder, way) as server:
                theirs[peer, decoder].look(bench, server)
    bares = bare.limit(rounds)
    figures: Figures = {"bare": rounds, "graft": {"processes": processes, **ours.document()}, "goals": []}
    for (peer, decoder), rates in theirs.items():
        words, goal = DECODERS[decoder]
        ratio = _median_ratio(ours.per_second, rates.per_second)
        of_bare = _median_ratio(rates.per_second, bares)
        figures[f"{peer}, {decoder} decoder"] = {"workers_x_threads": best[peer, decoder], **rates.document()}
        beaten = least(f"throughput over {peer} with {words} decoder", ratio, goal)
        beaten |= {"peer_of_bare": of_bare, "met": beaten["met"] or of_bare > NEAR}
        beaten |= {"by_processor_time": _median_ratio(rates.milliseconds, ours.milliseconds)}
        figures["goals"].append(beaten)
    return _tails(bench, figures, best, processes)


def _tails(bench: Bench, figures: Figures, best: dict[tuple[str, str], Way], processes: int) -> Figures:
    rate = SHARE * statistics.median(figures["graft"]["answers_per_second"])
    with _graft(bench, processes) as server:
        ours = opened(server, bench.usual, rate, bench.seconds).document()
    figures["graft at 70 %"] = ours
    for (peer, decoder), way in best.items():
        with _peer(bench, peer, decoder, way) as server:
            theirs = opened(server, bench.usual, rate, bench.seconds).document()
        figures[f"{peer}, {decoder} decoder, at 70 % of ours"] = theirs
        what = f"p99 at 70 % of our saturation, over that of {peer} with {DECODERS[decoder][0]} decoder"
        ratio = round(ours["p99_ms"] / theirs["p99_ms"], 3) if "p99_ms" in theirs else 0.0
        figures["goals"].append(most(what, ratio, 1.0))
    return figures


def _best(bench: Bench, ways: Iterable[W], start: Callable[[W], AbstractContextManager[Server]]) -> W:
    """The way to share the cores in which a server answers most."""
    rates = {}
    for way in ways:
        with start(way) as server:
            rates[way] = closed(server, bench.usual, CLIENTS, bench.seconds).document()["answers_per_second"]
    return max(rates, key=lambda way: rates[way])


def _median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Of figures of the same rounds."""
    return round(statistics.median(one / other for one, other in zip(above, below, strict=True)), 3)


def _graft(bench: Bench, processes: int) -> AbstractContextManager[Server]:
    return servers.graft(bench.home, GRAFT_SERVE_PROCESSES=str(processes))


@contextmanager
def _peer(bench: Bench, peer: str, decoder: str, way: Way) -> Iterator[Server]:
    start: Any = getattr(servers, peer)
    how = servers.peer(bench.graph, bench.shape, *way, decoder)
    log = bench.home / f"{peer}.log"
    running: AbstractContextManager[Server] = start(bench.pythons[peer], how, log)
    with running as server:
        yield server
