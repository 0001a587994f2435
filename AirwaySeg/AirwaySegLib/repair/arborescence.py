"""The spanning arborescence of greatest weight: which piece comes from which, all of them together, from the tree on.

Chu and Liu 1965; Edmonds 1967, doi:10.6028/jres.071B.032.
"""

from collections.abc import Mapping

Edge = tuple[int, int]
"""From a parent to a child."""


def arborescence(weights: Mapping[Edge, float], root: int) -> dict[int, int]:
    """The parent of every node but the root, so that all hang on it and the sum of the edges' weights is greatest.

    Every node that an edge leads to must be reachable from the root. Each node takes its best edge; a circle that
    arises is contracted to one node, whose edges from outside weigh what they gain over the circle's own.
    """
    parents = _best_parents(weights, root)
    circle = _circle(parents, root)
    if not circle:
        return parents
    new = max(max(edge) for edge in weights) + 1
    inner = {node: weights[parents[node], node] for node in circle}
    contracted: dict[Edge, float] = {}
    origin: dict[Edge, Edge] = {}
    for (parent, child), weight in weights.items():
        if parent in circle and child in circle:
            continue
        edge = (new if parent in circle else parent, new if child in circle else child)
        gain = weight - inner[child] if child in circle else weight
        if edge not in contracted or gain > contracted[edge]:
            contracted[edge], origin[edge] = gain, (parent, child)
    solved = {node: parents[node] for node in circle}
    for child, parent in arborescence(contracted, root).items():
        real_parent, real_child = origin[parent, child]
        solved[real_child] = real_parent
    return solved


def _best_parents(weights: Mapping[Edge, float], root: int) -> dict[int, int]:
    best: dict[int, tuple[float, int]] = {}
    for (parent, child), weight in weights.items():
        if child != root and parent != child and (child not in best or weight > best[child][0]):
            best[child] = weight, parent
    return {child: parent for child, (_, parent) in best.items()}


def _circle(parents: Mapping[int, int], root: int) -> set[int]:
    """The nodes of a circle; empty if there is none."""
    known = {root}
    for start in parents:
        way: list[int] = []
        node = start
        while node not in known:
            known.add(node)
            way.append(node)
            node = parents.get(node, root)
        if node in way:
            return set(way[way.index(node) :])
    return set()
