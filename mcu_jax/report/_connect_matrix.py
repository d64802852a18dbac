"""How connected methods are, all pairs of them: heat map and dendrogram."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from mcu_jax.report import _connect, _style
from mcu_jax.report._results import Results


def matrix_figure(results: Results, file: str | os.PathLike[str]) -> None:
    """Draw the mean accuracy barriers of all pairs of methods into `file`, in clustered order."""
    order, matrix, tree_lines = clustered(results)
    n = len(order)
    side = max(3.4, 0.62 * n)
    with _style.paper(file, side + 2.6, side + 2.4) as figure:
        tree, map_ = figure.subplots(2, 1, height_ratios=[1, max(2.5, 0.55 * n)], sharex=True)
        image = draw_cells(map_, matrix, 8.0)
        map_.set_xticks(range(n), order, rotation=40, ha="right", rotation_mode="anchor")
        map_.set_yticks(range(n), order)
        map_.tick_params(labelsize=9)
        map_.set_xlabel("mean over seeds; framed: the seed floor, two runs of one method", fontsize=9)
        draw_tree(tree, tree_lines)
        tree.set_ylabel("joined at\n(points)", fontsize=9)
        tree.tick_params(labelsize=9)
        bar = figure.colorbar(image, ax=map_, shrink=0.8, pad=0.02)
        bar.set_label("accuracy barrier (points, 0 is best)", fontsize=9)
        bar.ax.tick_params(labelsize=9)
        bar.outline.set_visible(False)
        figure.suptitle(
            f"Barriers between methods, {_connect.curves_of(results)[0]}\n{_connect.describe(results)}", fontsize=11
        )


def clustered(results: Results) -> tuple[list[str], np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """(labels, mean accuracy barriers in their order, the lines (x, y) of the tree above).

    The tree's leaves, from left to right, are the columns 0, 1, … of the matrix.
    """
    from scipy.cluster import hierarchy

    order, clusters = results.summary["order"], results.summary["clusters"]
    places = [clusters["labels"].index(label) for label in order]
    matrix = np.asarray(clusters["matrix"], float)[np.ix_(places, places)]
    tree = hierarchy.dendrogram(np.asarray(clusters["linkage"], float), no_plot=True)
    # scipy places leaf i at 5 + 10 i.
    lines = [((np.asarray(x) - 5) / 10, np.asarray(y)) for x, y in zip(tree["icoord"], tree["dcoord"], strict=True)]
    return order, matrix, lines


def draw_cells(axis: Any, matrix: np.ndarray, size: float | None) -> Any:
    """The heat map, of which the diagonal is framed: what a colour bar needs. size: of its numbers in points, None for
    none.
    """
    from matplotlib import colors
    from matplotlib.patches import Rectangle

    n = len(matrix)
    top = np.max(matrix[np.isfinite(matrix)], initial=1.0)
    # Cells are centred on whole numbers, without a forced aspect, so that the tree above shares their columns.
    # By square roots: one method far from all others would leave the rest without contrast.
    norm = colors.PowerNorm(0.5, 0.0, top)
    image = axis.imshow(np.ma.masked_invalid(matrix), cmap="YlGnBu", norm=norm, aspect="auto")
    for i, j in np.ndindex(n, n):
        value = matrix[i, j]
        text = f"{value:.1f}" if np.isfinite(value) else "–"
        colour = "white" if np.isfinite(value) and norm(value) > 0.55 else "black"
        if size is not None:
            axis.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    for i in range(n):
        axis.add_patch(Rectangle((i - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=_style.BLACK, linewidth=1.1))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def draw_tree(axis: Any, lines: Iterable[tuple[Any, Any]]) -> None:
    for x, y in lines:
        axis.plot(x, y, color=_style.GREY, linewidth=1.1)
    axis.set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
    axis.set_ylim(bottom=0.0)
    axis.tick_params(bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)
