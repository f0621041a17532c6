"""Context columns of users and services, matched by name, and autoencoder features for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from skqos.entities import EntityEncoder, EntityTable

AUTOENCODER_LEARNING_RATE = 1e-2


@dataclass(frozen=True)
class ContextColumn:
    """A categorical column of users, of services, or of both.

    Categories of users and of services have separate codes, those of users first, because they may
    have different effects. Equal categories share a group.

    Attributes
    ----------
    user_column, service_column : int or None
        Position among the categorical columns of the side, or None.
    n_user_categories : int
        Number of user codes; the codes from there on belong to services.
    groups : ndarray of int64 of shape (n_codes,)
        Group of each code; -1 for the category "unknown", which connects nothing.
    """

    user_column: int | None
    service_column: int | None
    n_user_categories: int
    groups: np.ndarray

    def user_codes(self, users: EntityTable) -> np.ndarray:
        """Return the code of each user, -1 if it is unknown or there is no column."""
        return _codes(users, self.user_column, 0)

    def service_codes(self, services: EntityTable) -> np.ndarray:
        """Return the code of each service, -1 if it is unknown or there is no column."""
        return _codes(services, self.service_column, self.n_user_categories)


def _codes(table: EntityTable, column: int | None, offset: int) -> np.ndarray:
    if column is None:
        return np.full(len(table), -1)
    codes = table.categories[:, column]
    return np.where(codes < 0, -1, codes + offset)


def match_columns(users: EntityEncoder, services: EntityEncoder) -> list[ContextColumn]:
    """Match categorical columns whose names differ only in the prefix, such as ``user_as``.

    Columns without the prefix of their side, for example those given by position, are not matched.
    """
    positions = [
        (position, services.shared_names.get(name)) for name, position in _by_name(users).items()
    ]
    positions += [
        (None, position)
        for name, position in _by_name(services).items()
        if name not in users.shared_names
    ]
    return [_match(users, user_column, services, column) for user_column, column in positions]


def _by_name(encoder: EntityEncoder) -> dict[Any, int]:
    """Return the position of each column by its name without prefix, or by a unique key."""
    named = {position: name for name, position in encoder.shared_names.items()}
    return {named.get(k, (k,)): k for k in range(len(encoder.categorical_))}


def _match(
    users: EntityEncoder,
    user_column: int | None,
    services: EntityEncoder,
    service_column: int | None,
) -> ContextColumn:
    user_labels, service_labels = (
        [] if column is None else list(encoder.categories_[column])
        for encoder, column in ((users, user_column), (services, service_column))
    )
    groups, _ = pd.factorize(pd.Index([*user_labels, *service_labels], dtype=object))
    return ContextColumn(user_column, service_column, len(user_labels), groups.astype(np.int64))


def autoencode(counts: np.ndarray, n_components: int, n_epochs: int) -> np.ndarray:
    """Compress the categories of a column by an autoencoder of one-hot rows.

    Two tanh layers encode, a linear layer decodes, and the loss is the squared error over all
    entities. With a linear decoder D, the error of the one-hot row of category c is
    ``|D h|^2 - 2 (D h)_c + 1``, where ``|D h|^2 = h^T (D^T D) h``, so one-hot rows are not stored.
    The random numbers are those of torch.

    Parameters
    ----------
    counts : ndarray of shape (n_codes,)
        Number of entities of each category.
    n_components : int
        Size of the code.
    n_epochs : int
        Number of steps, each on all categories.

    Returns
    -------
    ndarray of float32 of shape (n_codes, n_components)
        Codes in (-1, 1).
    """
    n_codes = len(counts)
    encoder = nn.Sequential(
        nn.Embedding(n_codes, 2 * n_components),
        nn.Tanh(),
        nn.Linear(2 * n_components, n_components),
        nn.Tanh(),
    )
    decoder = nn.Linear(n_components, n_codes, bias=False)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=AUTOENCODER_LEARNING_RATE, fused=True)
    shares = torch.as_tensor(counts / counts.sum(), dtype=torch.float32)
    rows = torch.arange(n_codes)
    for _ in range(n_epochs):
        hidden = encoder(rows)
        squares = ((hidden @ (decoder.weight.T @ decoder.weight)) * hidden).sum(1)
        loss = (shares * (squares - 2 * (decoder.weight * hidden).sum(1) + 1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return encoder(rows).numpy()
