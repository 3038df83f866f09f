"""A Gaussian process over configurations: what a time will be and how sure that is, on a pool of candidates.

Matern 5/2 with one length scale per group of coordinates, lengths by maximum a posteriori. Between fits an outcome is
added in O(trials * candidates): the Cholesky factor grows by a row and so does the whitened cross-covariance.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.25, 2.26, 4.17, 5.8 and 5.9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.optimize import fmin_l_bfgs_b

Array = npt.NDArray[Any]

PRIOR_NOISE = np.log(1e-3)  # of the targets' variance
PRIOR_NOISE_SPREAD = 1.5
PRIOR_LENGTH_SPREAD = 1.0
STEPS_MOST = 12  # of the length search at one fit; the next fit goes on from there
JITTER = 1e-6
SPARE = 64  # points that may be added before the arrays are copied
SPARE_POOL = 1024  # candidates that may be


class GaussianModel:
    """Told targets near zero mean and unit variance; predicts mean and deviation on its pool."""

    def __init__(self, group_of_column: Array, log_lengths: Array) -> None:
        self.group_of_column = group_of_column
        self.prior = log_lengths
        self.log_lengths = log_lengths.copy()
        self.log_scale, self.log_noise = 0.0, np.log(1e-2)

    def fit(self, points: Array, targets: Array, pool: Array, learn: bool = True) -> None:
        """Condition on (points, targets) and look at this pool; `learn` searches the length scales first."""
        if learn:
            self._learn(points, targets)
        self.condition(points, pool)

    def alike(self) -> GaussianModel:
        """A process of the same kernel that is conditioned on nothing yet."""
        other = GaussianModel(self.group_of_column, self.prior)
        other.log_lengths, other.log_scale, other.log_noise = self.log_lengths, self.log_scale, self.log_noise
        return other

    def condition(self, points: Array, pool: Array) -> None:
        """Condition on these points, whose targets are given to `mean`, and look at this pool."""
        self.inverse = np.exp(-self.log_lengths[self.group_of_column])
        self.scale = float(np.exp(self.log_scale))
        self.noise = float(np.exp(self.log_noise)) + JITTER
        self.points = points * self.inverse
        covariance = self._kernel(self.points, self.points)
        covariance[np.diag_indices(len(points))] += self.noise
        count = len(points)
        self._factor = np.zeros((count + SPARE, count + SPARE))
        self._factor[:count, :count] = np.linalg.cholesky(covariance)
        self._size = 0
        self._pool = np.zeros((0, points.shape[1]), np.float32)
        self._whitened = np.zeros((count + SPARE, 0), np.float32)
        self._variance = np.zeros(0, np.float32)
        self.add_candidates(pool)

    def add_point(self, point: Array) -> None:
        """Condition on one more point; its target is given to `mean` with the others."""
        scaled = point * self.inverse
        row = self._kernel(scaled[None], self.points)[0]
        white = solve_triangular(self.factor, row, lower=True, check_finite=False)
        rest = float(np.sqrt(max(self.scale + self.noise - white @ white, 1e-9)))
        cross = self._kernel(scaled[None].astype(np.float32), self.pool)[0]
        cross = (cross - white.astype(np.float32) @ self.whitened) / np.float32(rest)
        count = len(self.points)
        if count == len(self._factor):
            self._factor = np.pad(self._factor, ((0, SPARE), (0, SPARE)))
            self._whitened = np.pad(self._whitened, ((0, SPARE), (0, 0)))
        self._factor[count, :count], self._factor[count, count] = white, rest
        self._whitened[count, : self._size] = cross
        self.points = np.vstack([self.points, scaled])
        self._variance[: self._size] -= cross * cross

    def add_candidates(self, pool: Array) -> None:
        """Look at more candidates."""
        scaled = (pool * self.inverse).astype(np.float32)
        whitened = self._whiten(scaled)
        size = self._size + len(pool)
        if size > len(self._variance):
            more = size + SPARE_POOL - len(self._variance)
            self._pool = np.pad(self._pool, ((0, more), (0, 0)))
            self._whitened = np.pad(self._whitened, ((0, 0), (0, more)))
            self._variance = np.pad(self._variance, (0, more))
        new = slice(self._size, size)
        self._pool[new], self._whitened[: len(whitened), new] = scaled, whitened
        self._variance[new] = self.scale - np.einsum("ij,ij->j", whitened, whitened)
        self._size = size

    def mean(self, targets: Array) -> Array:
        """Posterior mean on the pool for these targets of the points, in the order told; shape (points, ...)."""
        white: Array = solve_triangular(self.factor, targets, lower=True, check_finite=False)
        return np.asarray(white.astype(np.float32).T @ self.whitened)

    def deviation(self) -> Array:
        """Posterior standard deviation on the pool."""
        return np.asarray(np.sqrt(np.maximum(self._variance[: self._size], 1e-8)))

    def likeness(self, point: Array) -> Array:
        """Prior correlation of each candidate with one point, 1 at the point itself."""
        return np.asarray(self._kernel((point * self.inverse)[None].astype(np.float32), self.pool)[0] / self.scale)

    @property
    def factor(self) -> Array:
        """Cholesky factor of the points' covariance."""
        return self._factor[: len(self.points), : len(self.points)]

    @property
    def pool(self) -> Array:
        """The candidates, scaled by their lengths."""
        return self._pool[: self._size]

    @property
    def whitened(self) -> Array:
        """The factor's inverse times the covariance of points and pool."""
        return self._whitened[: len(self.points), : self._size]

    def _whiten(self, pool: Array) -> Array:
        cross = self._kernel(self.points.astype(np.float32), pool)
        white: Array = solve_triangular(self.factor.astype(np.float32), cross, lower=True, check_finite=False)
        return white

    def _kernel(self, left: Array, right: Array) -> Array:
        squares = (left * left).sum(1)[:, None] + (right * right).sum(1)[None] - 2 * left @ right.T
        np.maximum(squares, 0, out=squares)
        roots = np.sqrt(5 * squares)
        result: Array = (1 + roots + squares * (5 / 3)) * np.exp(-roots)
        result *= self.scale
        return result

    def _learn(self, points: Array, targets: Array) -> None:
        groups = len(self.prior)
        posterior = _Posterior(self.prior, _squares(points, self.group_of_column, groups), targets)
        start = np.concatenate([self.log_lengths, [self.log_scale, self.log_noise]])
        bounds = [(-4.0, 4.5)] * groups + [(-3.0, 3.0), (-12.0, 0.0)]
        found = fmin_l_bfgs_b(posterior, start, maxiter=STEPS_MOST, bounds=bounds)[0]
        self.log_lengths, self.log_scale, self.log_noise = found[:groups], float(found[groups]), float(found[-1])


class _Posterior:
    """Negative log posterior of the hyperparameters, and its gradient."""

    def __init__(self, prior: Array, squares: Array, targets: Array) -> None:
        self.prior, self.squares, self.targets = prior, squares, targets

    def __call__(self, parameters: Array) -> tuple[float, Array]:
        groups, count = len(self.prior), len(self.targets)
        inverse_squares = np.exp(-2 * parameters[:groups])
        noise = np.exp(parameters[-1])
        roots = np.sqrt(5 * (inverse_squares @ self.squares))
        decay = np.exp(parameters[groups] - roots)
        covariance = ((1 + roots + roots * roots / 3) * decay).reshape(count, count)
        factor, failed = dpotrf(covariance + (noise + JITTER) * np.eye(count), lower=1)
        if failed:
            return 1e10, np.zeros_like(parameters)
        lower = np.tril(dpotri(factor, lower=1)[0])
        precision = lower + np.tril(lower, -1).T
        weights = precision @ self.targets
        slack = np.outer(weights, weights) - precision
        value = 0.5 * self.targets @ weights + np.log(np.diag(factor)).sum()
        gradient = np.empty_like(parameters)
        gradient[:groups] = -(5 / 6) * (self.squares @ (slack.ravel() * (1 + roots) * decay)) * inverse_squares
        gradient[groups] = -0.5 * np.sum(slack * covariance)
        gradient[-1] = -0.5 * np.trace(slack) * noise
        return self._with_priors(parameters, float(value), gradient)

    def _with_priors(self, parameters: Array, value: float, gradient: Array) -> tuple[float, Array]:
        groups = len(self.prior)
        centre = np.concatenate([self.prior, [0.0, PRIOR_NOISE]])
        spread = np.concatenate([np.full(groups, PRIOR_LENGTH_SPREAD), [1.0, PRIOR_NOISE_SPREAD]])
        away = (parameters - centre) / spread
        return value + 0.5 * float(away @ away), gradient + away / spread


def _squares(points: Array, group_of_column: Array, groups: int) -> Array:
    """Squared distances per group, shape (groups, n * n)."""
    found = np.zeros((groups, len(points), len(points)))
    for column, group in zip(points.T, group_of_column, strict=True):
        found[group] += (column[:, None] - column[None, :]) ** 2
    return found.reshape(groups, -1)
